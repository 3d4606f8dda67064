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

// watcher notices clients that hang up while their answer is still being
// made. fasthttp gives no such signal, and the connection cannot be read, as
// the next request may already be on it; so the raw sockets are asked. One
// goroutine looks at all of them, and only runs while there are any.
type watcher struct {
	mu      sync.Mutex
	watches map[*watch]struct{}
	running bool
}

type watch struct {
	conn net.Conn
	raw  syscall.RawConn
	gone func()
}

// add calls gone, once, when the peer of c hangs up before remove. A
// connection without a raw socket is not watched, and the result is nil.
func (w *watcher) add(c net.Conn, gone func()) *watch {
	raw := rawConn(c)
	if raw == nil {
		return nil
	}
	x := &watch{conn: c, raw: raw, gone: gone}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watches == nil {
		w.watches = map[*watch]struct{}{}
	}
	w.watches[x] = struct{}{}
	if !w.running {
		w.running = true
		go w.run()
	}
	return x
}

func (w *watcher) remove(x *watch) {
	if x == nil {
		return
	}
	w.mu.Lock()
	delete(w.watches, x)
	w.mu.Unlock()
}

// cut gives those who are watched a while to end, and then closes their connections: a
// client that takes nothing would keep its answer for ever.
func (w *watcher) cut(while time.Duration) {
	for end := time.Now().Add(while); w.watching() && time.Now().Before(end); {
		time.Sleep(disconnectPoll)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for x := range w.watches {
		_ = x.conn.Close()
	}
}

func (w *watcher) watching() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.watches) > 0
}

func (w *watcher) run() {
	tick := time.NewTicker(disconnectPoll)
	defer tick.Stop()
	var all []*watch
	for range tick.C {
		w.mu.Lock()
		if len(w.watches) == 0 {
			w.running = false
			w.mu.Unlock()
			return
		}
		all = all[:0]
		for x := range w.watches {
			all = append(all, x)
		}
		w.mu.Unlock()
		for _, x := range all {
			if hungUp(x.raw) {
				w.remove(x)
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
