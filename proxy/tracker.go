package proxy

import (
	"context"
	"sync"
)

// tracker counts what is under way, and lets others wait until nothing is. It
// can be closed to newcomers.
type tracker struct {
	mu     sync.Mutex
	n      int
	closed bool
	idle   chan struct{} // non-nil while somebody waits; closed when n is 0
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
	if t.n == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// close lets nobody in any more.
func (t *tracker) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
}

func (t *tracker) isIdle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n == 0
}

func (t *tracker) isClosed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed
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
