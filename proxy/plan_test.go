package proxy

import (
	"context"
	"testing"
	"time"

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
