package matcher

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// sweepEvery is how often expired entries of the embedded Redis are removed.
const sweepEvery = time.Minute

// openEmbedded starts a Redis inside this process. It listens nowhere: the
// client talks to it through in-memory pipes, so no other process can.
func openEmbedded(timeout time.Duration) (redis.UniversalClient, func() error, error) {
	m := miniredis.NewMiniRedis()
	o := &redis.Options{
		Addr:   "embedded",
		Dialer: func(context.Context, string, string) (net.Conn, error) { return m.Dial() },
	}
	bound(o, timeout)
	db := redis.NewClient(o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { sweep(m, stop) })
	return db, sync.OnceValue(func() error {
		close(stop)
		wg.Wait()
		err := db.Close()
		m.Close()
		return err
	}), nil
}

// sweep passes the time on to miniredis, whose clock stands still by itself.
func sweep(m *miniredis.Miniredis, stop <-chan struct{}) {
	t := time.NewTicker(sweepEvery)
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
