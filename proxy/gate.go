package proxy

import (
	"context"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

const (
	// gatePoll is how often the backend is asked whether a request has started.
	gatePoll = 3 * time.Millisecond
	// gateLimit is the longest that one request keeps the others from starting
	// once it was forwarded.
	gateLimit = 2 * time.Second
)

// gate lets one in at a time. By live's, requests start one at a time at a backend that empties
// idle slots at every start: each has it from when its slot is filled until it runs.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

// enter waits for its turn; false means that ctx ended first.
func (g gate) enter(ctx context.Context) bool {
	select {
	case g <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g gate) leave() { <-g }

// leaveWhenBusy leaves once the slot is at work, or over is closed, or it takes
// too long.
func (g gate) leaveWhenBusy(b *bridge.Backend, slot int, over <-chan struct{}) {
	defer g.leave()
	ctx, cancel := context.WithTimeout(context.Background(), gateLimit)
	defer cancel()
	for {
		if busy, ok := b.Busy(ctx); !ok || atWork(busy, slot) {
			return
		}
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-time.After(gatePoll):
		}
	}
}

// enterGate waits for the request's turn, where requests start one at a time; false means that ctx
// ended first.
func (d *decision) enterGate(ctx context.Context) bool {
	volatile := d.lv.probed.Volatile
	d.gated = volatile && d.lv.gate.enter(ctx)
	return d.gated || !volatile
}

// forwarded is called right before the request goes to the backend.
func (d *decision) forwarded() {
	if d.gated && d.Slot >= 0 {
		d.gated = false
		go d.lv.gate.leaveWhenBusy(d.sh.backend, d.Slot, d.over)
		return
	}
	d.leaveGate()
}

func (d *decision) leaveGate() {
	if d.gated {
		d.gated = false
		d.lv.gate.leave()
	}
}
