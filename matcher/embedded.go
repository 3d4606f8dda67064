package matcher

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// sweepEvery is how often expired entries of the embedded Redis are removed: a hundredth of
// the TTL, by which they may go too soon. Seldom, since look-ups wait meanwhile (for half a
// million keys 0.5 s).
func sweepEvery(ttl time.Duration) time.Duration { return max(ttl/100, time.Minute) }

// embeddedTimeout is the least timeout of an operation on the embedded Redis.
const embeddedTimeout = time.Second

// embedded is a Redis inside this process.
type embedded struct {
	*miniredis.Miniredis
	growth
}

// openEmbedded starts one. It listens nowhere: the client talks to it through in-memory
// pipes, so no other process can.
func openEmbedded(timeout, sweeping time.Duration) (*embedded, redis.UniversalClient, func() error) {
	m := miniredis.NewMiniRedis()
	o := &redis.Options{
		Addr:   "embedded",
		Dialer: func(context.Context, string, string) (net.Conn, error) { return dialEmbedded(m) },
	}
	bound(o, timeout)
	db := redis.NewClient(o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { sweep(m, sweeping, stop) })
	return &embedded{Miniredis: m}, db, sync.OnceValue(func() error {
		close(stop)
		wg.Wait()
		err := db.Close()
		m.Close()
		return err
	})
}

// sweep passes the time on to miniredis, whose clock stands still by itself.
func sweep(m *miniredis.Miniredis, every time.Duration, stop <-chan struct{}) {
	t := time.NewTicker(every)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-stop:
			return
		case now := <-t.C:
			m.FastForward(now.Sub(last))
			last = now
		}
	}
}

// sendConn lets a pipeline be written without being read meanwhile. An
// in-memory pipe has no buffer, the server answers command by command, and the
// client reads nothing before it has written all: they would wait for each
// other for ever.
type sendConn struct {
	net.Conn
	mu     sync.Mutex
	more   *sync.Cond
	queue  bytes.Buffer
	closed bool
}

func dialEmbedded(m *miniredis.Miniredis) (net.Conn, error) {
	c, err := m.Dial()
	if err != nil {
		return nil, err
	}
	s := &sendConn{Conn: c}
	s.more = sync.NewCond(&s.mu)
	go s.pump()
	return s, nil
}

// Write queues p; the deadlines hold for reading, which ends every operation.
func (s *sendConn) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.queue.Write(p)
	s.more.Signal()
	return len(p), nil
}

// Close ends the pump too.
func (s *sendConn) Close() error {
	s.mu.Lock()
	s.closed = true
	s.more.Signal()
	s.mu.Unlock()
	return s.Conn.Close()
}

// SetDeadline leaves writing alone, see Write.
func (s *sendConn) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetWriteDeadline does nothing, see Write.
func (s *sendConn) SetWriteDeadline(time.Time) error { return nil }

// pump passes on what was queued until the connection is closed.
func (s *sendConn) pump() {
	var batch bytes.Buffer
	for {
		s.mu.Lock()
		for s.queue.Len() == 0 && !s.closed {
			s.more.Wait()
		}
		if s.closed {
			s.mu.Unlock()
			return
		}
		batch, s.queue = s.queue, batch
		s.mu.Unlock()
		if _, err := batch.WriteTo(s.Conn); err != nil {
			s.Close()
			return
		}
		batch.Reset()
	}
}
