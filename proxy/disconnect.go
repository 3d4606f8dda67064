package proxy

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// disconnectPoll is how often the sockets of waiting clients are looked at. A
// client that left must be noticed well within 500 ms.
const disconnectPoll = 50 * time.Millisecond

// hangups notices clients that hang up while their answer is still being
// made. fasthttp gives no such signal, and the connection cannot be read, as
// the next request may already be on it; so the raw sockets are asked. One
// goroutine looks at all of them, and only runs while there are any.
type hangups struct {
	mu      sync.Mutex
	awaited map[*hangup]struct{}
	running bool
}

type hangup struct {
	conn net.Conn
	raw  syscall.RawConn
	gone func()
}

// add calls gone, once, when the peer of c hangs up before remove. A
// connection without a raw socket is not watched, and the result is nil.
func (h *hangups) add(c net.Conn, gone func()) *hangup {
	raw := rawConn(c)
	if raw == nil {
		return nil
	}
	x := &hangup{conn: c, raw: raw, gone: gone}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.awaited == nil {
		h.awaited = map[*hangup]struct{}{}
	}
	h.awaited[x] = struct{}{}
	if !h.running {
		h.running = true
		go h.run()
	}
	return x
}

func (h *hangups) remove(x *hangup) {
	if x == nil {
		return
	}
	h.mu.Lock()
	delete(h.awaited, x)
	h.mu.Unlock()
}

// cut gives those who are watched a while to end, and then closes their connections: a
// client that takes nothing would keep its answer for ever.
func (h *hangups) cut(while time.Duration) {
	for end := time.Now().Add(while); h.awaiting() && time.Now().Before(end); {
		time.Sleep(disconnectPoll)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for x := range h.awaited {
		_ = x.conn.Close()
	}
}

func (h *hangups) awaiting() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.awaited) > 0
}

func (h *hangups) run() {
	tick := time.NewTicker(disconnectPoll)
	defer tick.Stop()
	var all []*hangup
	for range tick.C {
		h.mu.Lock()
		if len(h.awaited) == 0 {
			h.running = false
			h.mu.Unlock()
			return
		}
		all = all[:0]
		for x := range h.awaited {
			all = append(all, x)
		}
		h.mu.Unlock()
		for _, x := range all {
			if hungUp(x.raw) {
				h.remove(x)
				x.gone()
			}
		}
	}
}

// rawConn returns the socket under c, also under TLS, or nil.
func rawConn(c net.Conn) syscall.RawConn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// hungUp reports whether the peer has closed its side, without reading: poll's
// RDHUP sees the end even behind bytes that nobody has read yet (a pipelined
// request), which peeking at the socket would not. llama-server, too, takes a
// half-closed connection for a client that left.
func hungUp(raw syscall.RawConn) bool { return polled(raw, unix.POLLRDHUP) }

// stirred reports whether the peer of an idle connection has closed its side or sent something.
func stirred(raw syscall.RawConn) bool { return polled(raw, unix.POLLRDHUP|unix.POLLIN) }

// polled reports whether one of the events, or the connection's end, is there.
func polled(raw syscall.RawConn, events int16) bool {
	found := false
	err := raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(p, 0)
		found = err == nil && n > 0 && p[0].Revents&(events|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
	return found || err != nil
}
