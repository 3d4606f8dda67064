package eval

import (
	"context"
	"fmt"
	"slices"

	"github.com/semsharekv/semsharekv/proxy"
)

// One time says little on a machine that does other work as well: where a target goes
// cold, the two times differ by what chance makes of them. A repetition takes both anew,
// from empty slots and a store without references.

// times are those to the first token of one pair, in ms.
type times struct{ cold, shared []float64 }

// repeat adds repetitions to the times that the pair's run took, until there are repeats
// of each. Their answers are not looked at, but the sidecar must decide as in the first
// run, whose decision is first.
func (m *bench) repeat(ctx context.Context, p Pair, first string, t *times, step func(weight int)) error {
	for len(t.shared) < m.repeats {
		cold, err := m.coldTime(ctx, p.Target)
		if err != nil {
			return fmt.Errorf("cold run %d: %w", len(t.cold)+1, err)
		}
		step(len(p.Target))
		shared, report, err := m.sharedTime(ctx, p, step)
		if err == nil {
			err = decidedAs(first, &report)
		}
		if err != nil {
			return fmt.Errorf("run %d: %w", len(t.shared)+1, err)
		}
		step(len(p.Target))
		t.cold, t.shared = append(t.cold, cold), append(t.shared, shared)
	}
	return nil
}

// coldTime is the TTFT in ms straight from the backend, into an empty slot.
func (m *bench) coldTime(ctx context.Context, target string) (float64, error) {
	if err := m.sidecar.forget(ctx); err != nil {
		return 0, err
	}
	ttft, t, err := m.direct.chat(ctx, target, coldSlot)
	if err != nil {
		return 0, err
	}
	if t.CacheN != 0 {
		return 0, fmt.Errorf("the backend found %d tokens in an erased slot; something else is using it", t.CacheN)
	}
	return ms(ttft), nil
}

// decidedAs reports a run that was decided otherwise than the first: a median over cold
// and shared runs would be of neither.
func decidedAs(first string, report *proxy.Report) error {
	if now := string(report.State); now != first {
		return fmt.Errorf("it was %s (%s) where the first run was %s; a median over both says nothing", now, report.Reason, first)
	}
	return nil
}

// sharedTime is the target's TTFT in ms through a sidecar that has seen the reference
// alone, and what the sidecar says that it did.
func (m *bench) sharedTime(ctx context.Context, p Pair, step func(weight int)) (ttft float64, report proxy.Report, err error) {
	if err := m.onlyReference(ctx, p); err != nil {
		return 0, report, err
	}
	step(len(p.Reference))
	took, _, err := m.client.chat(ctx, p.Target, -1)
	if err != nil {
		return 0, report, fmt.Errorf("target through the sidecar: %w", err)
	}
	report, err = m.sidecar.last(ctx)
	return ms(took), report, err
}

// put writes the medians.
func (t *times) put(r *Result) {
	r.TTFTCold, r.TTFTShared = median(slices.Sorted(slices.Values(t.cold))), median(slices.Sorted(slices.Values(t.shared)))
	r.Speedup = r.TTFTCold / r.TTFTShared
	r.Repeats = len(t.shared)
}
