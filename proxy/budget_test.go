package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestBudget: deciding may take what the route says, or 2 % of the cold prefill of a prompt
// that a slot may take.
func TestBudget(t *testing.T) {
	const route = 250 * time.Millisecond
	f := func(what string, p *bridge.Probed, bytes int, want time.Duration) {
		t.Helper()
		d := &decision{lv: &live{probed: p, costs: newCosts(p, 1)},
			req: &request{Prompt: Prompt{Text: strings.Repeat("a", bytes)}, Policy: configs.Policy{Budget: route}}}
		if got := d.budget(); got < want*98/100 || got > want*102/100 {
			t.Errorf("%s, %d bytes: %v to decide, want %v", what, bytes, got, want)
		}
	}
	f("CPU", inSlots(slow(7), 131072), 4*1000, route)
	f("CPU", inSlots(slow(7), 131072), 4*47_000, 21*time.Second) // on average a token costs three times what the first does
	f("CPU, more bytes a token", inSlots(slow(7), 47_000), 7*47_000, 21*time.Second)
	f("CPU, more than a slot takes", inSlots(slow(7), 47_000), 9*47_000, route)
	f("GPU", inSlots(gpu(24), 131072), 4*4000, route)
	f("times unknown", inSlots(&bridge.Probed{}, 131072), 4*47_000, route)
	f("context unknown", slow(7), 4*47_000, route)
}

// inSlots is a backend whose slots have so many tokens.
func inSlots(p *bridge.Probed, context int) *bridge.Probed {
	p.Props.Context = context
	return p
}

// TestWhatTakesLongToComputeHasTimeToBeDecided: it is kept, and shared, though the route's time
// is over before its tokens are known.
func TestWhatTakesLongToComputeHasTimeToBeDecided(t *testing.T) {
	model := tinymodel.Make(t, tinymodel.Options{Context: 4096})
	s := startSharing(t, lab.BackendOptions{Model: model, Context: 8192}, func(c *configs.Config) { c.Defaults.Budget = time.Nanosecond })
	s.live().costs = newCosts(slow(1e6), 1)
	if r := s.complete(tale("1812")); r.did != "cold; reason="+coldNothing {
		t.Fatalf("the sidecar did %q with the first prompt", r.did)
	}
	s.want(s.complete(tale("1847")), "shared")
}
