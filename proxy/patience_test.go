package proxy

import (
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

// TestPatience: a call may take three batches at the end of a slot's context, and what it may
// take anyway where those are quick or not known.
func TestPatience(t *testing.T) {
	f := func(what string, p *bridge.Probed, want time.Duration) {
		t.Helper()
		lv := &live{probed: p, costs: newCosts(p, 1)}
		if got := lv.patience(eraseTimeout); got < want*98/100 || got > want*102/100 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	f("CPU, small model", inSlots(slow(7), 8192), 73*time.Second) // 2,048 tokens take 24.5 s there
	f("CPU, 8B", inSlots(slow(100), 8192), 1050*time.Second)
	f("CPU, small model, short slots", inSlots(slow(7), 256), eraseTimeout)
	f("GPU", inSlots(gpu(24), 32768), eraseTimeout)
	f("times unknown", inSlots(&bridge.Probed{}, 8192), eraseTimeout)
	f("context unknown", slow(100), eraseTimeout)
}
