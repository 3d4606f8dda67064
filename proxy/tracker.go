package proxy

import (
	"context"
	"sync"
	"time"
)

// tracker counts what is under way, and lets others wait until nothing is. It
// can be closed to newcomers.
type tracker struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // non-nil while somebody waits; closed when n is 0
	since  time.Time     // when n last became 0
}

// begin counts one in; it is false once the tracker is closed.
func (t *tracker) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.n++
	return true
}

// end counts one out.
func (t *tracker) end() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n--
	if t.n > 0 {
		return
	}
	t.since = time.Now()
	if t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// idleFor is for how long nothing has been under way.
func (t *tracker) idleFor() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n > 0 {
		return 0
	}
	return time.Since(t.since)
}

// close lets nobody in any more.
func (t *tracker) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

// wait returns once nothing is under way, or with the context's error.
func (t *tracker) wait(ctx context.Context) error {
	t.mu.Lock()
	if t.n == 0 {
		t.mu.Unlock()
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	idle := t.idle
	t.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
