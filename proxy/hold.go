package proxy

import (
	"context"
	"sync"
	"time"
)

// While the backend is tried out nobody keeps its slots apart: at a busy one every slot that
// gets free goes to the next client at once, between any two steps of the probe. So new
// requests wait meanwhile, though not for long.

const (
	// holdFor bounds how long a request waits for the probe.
	holdFor = 2 * time.Second
	// idleWait is how much of that the probe may take to find a slot that is not at work, and
	// idlePoll how often it looks.
	idleWait = time.Second
	idlePoll = 10 * time.Millisecond
	// heldTries is how many probes in a row requests are held for.
	heldTries = 3
)

// hold keeps new requests back. Its zero value keeps none.
type hold struct {
	mu    sync.Mutex
	ended chan struct{} // see over
	limit *time.Timer
}

// begin has requests wait until end is called, or holdFor has passed.
func (h *hold) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended != nil {
		h.limit.Reset(holdFor)
		return
	}
	over := make(chan struct{})
	h.ended = over
	h.limit = time.AfterFunc(holdFor, func() { h.endOf(over) })
}

func (h *hold) end() { h.endOf(h.over()) }

// over is closed when the requests that are held may go on; nil while none are.
func (h *hold) over() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

func (h *hold) endOf(over chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended == over && over != nil {
		h.limit.Stop()
		close(over)
		h.ended = nil
	}
}

// wait waits until the request may go on, for holdFor at most.
func (h *hold) wait(ctx context.Context) {
	over := h.over()
	if over == nil {
		return
	}
	limit := time.NewTimer(holdFor)
	defer limit.Stop()
	select {
	case <-over:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// clearSlot finds a slot to try the backend out in, while requests are held. Where none is
// idle it is the first, once the backend has got round to emptying it.
func (w *watch) clearSlot(ctx context.Context) int {
	w.holdRequests()
	for end := time.Now().Add(idleWait); ; {
		slot, ok, err := w.sh.backend.Idle(ctx, -1)
		if ok {
			return slot
		}
		if err != nil || time.Now().After(end) {
			break
		}
		time.Sleep(idlePoll)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout/2) // the probe needs the rest
	defer cancel()
	_ = w.sh.backend.Erase(ctx, 0) // the probe says what is wrong with it
	w.holdRequests()
	return 0
}

// holdRequests has new requests wait, unless heldTries probes in a row were spoilt all the
// same: others come around the sidecar, or answers take long.
func (w *watch) holdRequests() {
	if w.taken < heldTries {
		w.sh.hold.begin()
	}
}
