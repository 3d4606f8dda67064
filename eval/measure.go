package eval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/proxy"
)

// bench measures pairs on one backend and one sidecar.
type bench struct {
	cfg     *configs.Config // the sidecar's
	props   *props
	direct  *backend
	sidecar *sidecar
	client  *backend // to the sidecar
	answer  int      // tokens
	repeats int      // of each time
	// ablations and trials are made on each pair that is shared. Which trials, of the frontier
	// or of the levels of a calibration, may depend on what was found.
	ablations []variant
	trials    func(*Result) []variant
}

// coldSlot is the slot of cold runs. Pinning one keeps the server from filling
// it out of its RAM cache.
const coldSlot = 0

// coldRun is what the backend does by itself.
type coldRun struct {
	ttft   float64 // ms
	answer *completion
}

// measure runs one pair. On an error the result holds what was known by then.
func (m *bench) measure(ctx context.Context, p Pair, step func(weight int)) Result {
	r := Result{ID: p.ID, Group: p.Group, Expected: p.Answer}
	if err := m.run(ctx, p, &r, step); err != nil {
		r.Error = err.Error()
	}
	return r
}

func (m *bench) run(ctx context.Context, p Pair, r *Result, step func(int)) error {
	tokens, pieces, err := m.direct.prompt(ctx, p.Target)
	if err != nil {
		return err
	}
	r.Tokens, r.CellsCold = len(tokens), len(tokens)
	cold, err := m.cold(ctx, p.Target, tokens)
	step(len(p.Target))
	if err != nil {
		return fmt.Errorf("cold run: %w", err)
	}
	r.AnswerCold = cold.answer.text
	ttft, report, err := m.sharedTime(ctx, p, step)
	if err != nil {
		return err
	}
	t := times{cold: []float64{cold.ttft}, shared: []float64{ttft}}
	t.put(r)
	if err := r.take(&report, tokens, pieces); err != nil {
		return err
	}
	if err := m.shared(ctx, p, tokens, cold, &report, r); err != nil {
		return fmt.Errorf("shared run: %w", err)
	}
	if report.State == proxy.StateShared {
		r.Ablations = m.try(ctx, p, tokens, cold, m.ablations)
		if m.trials != nil {
			r.Trials = m.try(ctx, p, tokens, cold, m.trials(r))
		}
	}
	step(len(p.Target))
	defer t.put(r)
	return m.repeat(ctx, p, r.Decision, &t, step)
}

func (m *bench) cold(ctx context.Context, target string, tokens []int32) (*coldRun, error) {
	ttft, err := m.coldTime(ctx, target)
	if err != nil {
		return nil, err
	}
	answer, err := m.direct.complete(ctx, tokens, coldSlot, m.answer, probabilities)
	if err != nil {
		return nil, err
	}
	if err := continued(answer.timings, len(tokens)); err != nil {
		return nil, err
	}
	return &coldRun{ttft: ttft, answer: answer}, nil
}

// onlyReference has the sidecar know the pair's reference, what comes between it and the
// target, and nothing else: what follows, the target shared in one way or several, is not
// kept, since the next way would find the target itself.
func (m *bench) onlyReference(ctx context.Context, p Pair) error {
	m.sidecar.sharer.Keep(true)
	defer m.sidecar.sharer.Keep(false)
	if err := m.sidecar.forget(ctx); err != nil {
		return err
	}
	for _, text := range p.known() {
		if err := m.see(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// see sends the sidecar a message that may serve later ones.
func (m *bench) see(ctx context.Context, text string) error {
	if _, _, err := m.client.chat(ctx, text, -1); err != nil {
		return fmt.Errorf("reference through the sidecar: %w", err)
	}
	report, err := m.sidecar.last(ctx)
	if err != nil {
		return err
	}
	if errors.Is(report.NotKept, bridge.ErrNotAdmitted) {
		return fmt.Errorf("%w; what others keep in the slot directory is left alone: raise store.budget_bytes (--budget) for this run, or make room there", report.NotKept)
	}
	// What is shared must come from the store, not from what the slot still holds.
	return m.sidecar.sharer.EmptySlots(ctx)
}

// shared continues in the very slot that the sidecar filled: first along the
// cold answer, token by token, for its distributions, then freely for its own
// answer.
func (m *bench) shared(ctx context.Context, p Pair, tokens []int32, cold *coldRun, report *proxy.Report, r *Result) error {
	if report.Slot < 0 {
		return fmt.Errorf("the sidecar (%s, %s) pinned no slot, so its KV cannot be looked at", report.State, report.Reason)
	}
	answer := cold.answer.tokens
	distributions, err := m.direct.follow(ctx, tokens, answer, report.Slot)
	if err != nil {
		return err
	}
	r.score(compare(answer, cold.answer.distributions, distributions))
	own, err := m.direct.complete(ctx, tokens, report.Slot, m.answer, 0)
	if err != nil {
		return err
	}
	if err := continued(own.timings, len(tokens)); err != nil {
		return err
	}
	r.AnswerShared = own.text
	r.SameAnswer = own.text == cold.answer.text
	against := p.Answer
	if against == "" {
		against = cold.answer.text
	}
	r.RougeL = rougeL(own.text, against)
	return nil
}

// continued checks that the backend computed only the prompt's last token and
// took all before it from the slot: otherwise it is not the slot's KV that is
// measured.
func continued(t timings, prompt int) error {
	if t.CacheN != prompt-1 {
		return fmt.Errorf("the backend took %d of %d prompt tokens from the slot, want all but the last; the figures would not be the slot's own", t.CacheN, prompt)
	}
	return nil
}

// take copies what the sidecar reports.
func (r *Result) take(report *proxy.Report, tokens []int32, pieces []string) error {
	r.Decision, r.Reason, r.Similarity = string(report.State), report.Reason, report.Similarity
	if len(report.Tokens) > 0 && !slices.Equal(report.Tokens, tokens) {
		return fmt.Errorf("the sidecar saw %d tokens that are not the backend's own %d", len(report.Tokens), len(tokens))
	}
	n := float64(len(tokens))
	r.Reused, r.Recomputed = float64(report.Reused)/n, float64(report.Recomputed)/n
	r.Displaced = report.Displaced
	if report.State != proxy.StateShared { // no plan: what was not found was computed
		r.Recomputed = 1 - r.Reused
	}
	if report.State == proxy.StateExact && r.Similarity == 0 { // not looked for: at least the prefix is the same
		r.Similarity = r.Reused
	}
	r.Match, r.Compose, r.Inject = ms(report.Match), ms(report.Compose), ms(report.Inject)
	r.CellsShared = report.Cells
	r.tokens = viewTokens(report, pieces)
	return nil
}

func (r *Result) score(q quality) {
	r.KL, r.KLMean, r.KLMax, r.Top1, r.NLLDelta = q.perPosition, q.mean, q.worst, q.top1, q.nllDelta
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
