package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// TestAligningIsWithinTheTimeBudget: what there was no time to align is not called dissimilar.
func TestAligningIsWithinTheTimeBudget(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	d := &decision{sh: &Sharer{metrics: NewMetrics()}, lv: &live{signer: matcher.IdentitySigner(1)},
		req: &request{Policy: configs.Default().Defaults}, tokens: make([]int32, 100)}
	p, reason := d.plan(ctx, []matcher.Reference{{Tokens: make([]int32, 100)}})
	if p != nil || reason != coldLate {
		t.Errorf("planned %v, reason %q: want %q", p, reason, coldLate)
	}
}

// What follows a word that differs is recomputed, but where the word is taken over.
func TestWhatFollowsAWordIsRecomputedUnlessTheWordIsAccepted(t *testing.T) {
	follow := func(u configs.Unrepaired) (n int) {
		d := planning(0)
		d.req.Policy.Unrepaired = u
		d.lv.model = &bridge.Model{}
		a := jumping()
		a.Matches[100].Similarity = .8
		before := d.drawPlan(t.Context(), jumping()).Recomputed()
		return d.drawPlan(t.Context(), a).Recomputed() - before
	}
	if n := follow(configs.UnrepairedCold); n != usual.CriticalFollowers {
		t.Errorf("%d tokens are recomputed, want %d", n, usual.CriticalFollowers)
	}
	if n := follow(configs.UnrepairedAccept); n != 0 {
		t.Errorf("%d tokens are recomputed behind a word that is taken over, want none", n)
	}
}
