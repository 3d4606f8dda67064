package eval

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
	"github.com/semsharekv/semsharekv/proxy"
)

// Trial is what came of one pair's target shared in another way than the
// configuration's. With Error set the other figures are not to be used.
type Trial struct {
	Name    string  `json:"name"`
	Way     string  `json:"way"`  // agent or slot
	Work    float64 `json:"work"` // share of a cold prefill's token-layers that was computed
	TTFT    float64 `json:"ttft_ms"`
	Speedup float64 `json:"speedup"` // cold over this TTFT
	KLMean  float64 `json:"kl_mean"` // nats
	KLMax   float64 `json:"kl_max"`  // nats
	Top1    float64 `json:"top1"`
	// SameAnswer and Right are of the greedy answer; Right where the pair names one.
	SameAnswer bool   `json:"same_answer"`
	Right      bool   `json:"right"`
	Error      string `json:"error,omitempty"`
}

// variant is a trial to be made.
type variant struct {
	name  string
	trial proxy.Trial
}

func (v *variant) way() string {
	if v.trial.Slot {
		return SlotWay
	}
	return AgentWay
}

// compute sets what the agent computes besides what the plan names.
func compute(p *configs.Policy, first, last, attended float64) {
	p.AgentShareFirst, p.AgentShareLast, p.AgentAttended, p.Quality.KL = first, last, attended, 0
}

// ablations take one part of the agent's way out at a time.
func ablations() []variant {
	policy := func(u configs.Unrepaired) func(*configs.Policy) {
		return func(p *configs.Policy) { p.Unrepaired = u }
	}
	noExtra := func(p *configs.Policy) { compute(p, 0, 0, 0) }
	return []variant{
		{"as configured", proxy.Trial{}},
		{"no RoPE delta", proxy.Trial{Unrotated: true}},
		{"passages not shifted", proxy.Trial{Plan: shiftNothing}},
		{"nothing that an answer attends to", proxy.Trial{Policy: noExtra}},
		{"no recompute", proxy.Trial{Policy: noExtra, Plan: recomputeNothing}},
		{"random tokens recomputed", proxy.Trial{Policy: noExtra, Plan: recomputeRandom}},
		{"no fuzzy tokens (near counterparts recomputed)", proxy.Trial{Policy: policy(configs.UnrepairedCold)}},
		{"fuzzy tokens (near counterparts taken over)", proxy.Trial{Policy: policy(configs.UnrepairedAccept)}},
	}
}

// takeOver has the token's source supply its KV; without one it gets no cell.
func takeOver(t *matcher.PlanToken) {
	t.Reason = matcher.Reused
	if t.Ref < 0 {
		t.Reason = matcher.Hole
	}
}

// shiftNothing computes the samples as before, but nothing is learnt from them.
func shiftNothing(tokens []matcher.PlanToken) {
	for i := range tokens {
		if tokens[i].Reason == matcher.Sample {
			tokens[i].Reason = matcher.Follows
		}
	}
}

func recomputeNothing(tokens []matcher.PlanToken) {
	for i := range tokens {
		takeOver(&tokens[i])
	}
}

// randomSeed is any fixed value: the same plan gives the same choice.
const randomSeed = 4

// recomputeRandom computes as many tokens as planned, anywhere. The last stays as
// it was: the server goes on behind it, so that it needs a cell.
func recomputeRandom(tokens []matcher.PlanToken) {
	n := 0
	for i := range tokens {
		if tokens[i].Reason.Recomputed() {
			n++
		}
	}
	recomputeNothing(tokens)
	if len(tokens) < 2 {
		return
	}
	order := rand.New(rand.NewPCG(randomSeed, uint64(len(tokens)))).Perm(len(tokens) - 1)
	for _, i := range order[:min(n, len(order))] {
		tokens[i].Reason = matcher.Unmatched
	}
}

// frontier goes from little to much recomputing in both ways.
func frontier() []variant {
	var out []variant
	agent := func(followers int, first, last float64) {
		name := fmt.Sprintf("agent, %d followers", followers)
		if first > 0 {
			name += fmt.Sprintf(", share %g to %g", first, last)
		}
		out = append(out, variant{name, proxy.Trial{Policy: func(p *configs.Policy) {
			p.AgentFollowers, p.CriticalFollowers = followers, max(followers, p.CriticalFollowers)
			if followers == 0 {
				p.CriticalFollowers, p.Seam = 0, 1
			}
			compute(p, first, last, 0)
		}}})
	}
	for _, f := range []int{0, 1, 2, 4} {
		agent(f, 0, 0)
	}
	for _, s := range []float64{.1, .2, .4, .8} {
		agent(2, s, s/4)
	}
	for _, s := range attendedShares {
		out = append(out, variant{fmt.Sprintf("agent, %g attended", s), proxy.Trial{Policy: func(p *configs.Policy) {
			compute(p, 0, 0, s)
		}}})
	}
	for _, s := range []float64{0, .03, .1, .3, 1} {
		out = append(out, variant{fmt.Sprintf("slot, repair share %g", s), proxy.Trial{Slot: true, Policy: func(p *configs.Policy) {
			p.Unrepaired, p.RepairShare = configs.UnrepairedAccept, s
		}}})
	}
	return out
}

// try makes the pair's trials one after the other. The sidecar has the pair's
// reference.
func (m *bench) try(ctx context.Context, p Pair, tokens []int32, cold *coldRun, variants []variant) []Trial {
	defer m.sidecar.sharer.Try(nil)
	var out []Trial
	for _, v := range variants {
		if ctx.Err() != nil {
			break
		}
		t := Trial{Name: v.name, Way: v.way()}
		m.sidecar.sharer.Try(&v.trial)
		if err := m.tryOne(ctx, p, tokens, cold, &t); err != nil {
			t.Error = err.Error()
			m.sidecar.sharer.Try(nil)
			if err := m.onlyReference(ctx, p); err != nil {
				t.Error += "; then: " + err.Error()
			}
		}
		out = append(out, t)
	}
	return out
}

func (m *bench) tryOne(ctx context.Context, p Pair, tokens []int32, cold *coldRun, t *Trial) error {
	if err := m.sidecar.sharer.EmptySlots(ctx); err != nil {
		return err
	}
	ttft, _, err := m.client.chat(ctx, p.Target, -1)
	if err != nil {
		return err
	}
	report, err := m.sidecar.last(ctx)
	if err != nil {
		return err
	}
	if report.State != proxy.StateShared {
		return fmt.Errorf("not shared: %s %s", report.State, report.Reason)
	}
	var r Result
	if err := m.shared(ctx, p, tokens, cold, &report, &r); err != nil {
		return err
	}
	t.TTFT, t.Work = ms(ttft), report.Work
	t.Speedup = cold.ttft / t.TTFT
	t.KLMean, t.KLMax, t.Top1, t.SameAnswer = r.KLMean, r.KLMax, r.Top1, r.SameAnswer
	t.Right = p.Answer != "" && says(r.AnswerShared, p.Answer)
	return nil
}

// TrialSummary is one kind of trial over all pairs on which it was made.
type TrialSummary struct {
	Name   string  `json:"name"`
	Way    string  `json:"way"`
	Pairs  int     `json:"pairs"`
	Errors int     `json:"errors"`
	Work   float64 `json:"work"`    // mean
	KLMean float64 `json:"kl_mean"` // mean over the pairs, nats
	KLMax  float64 `json:"kl_max"`  // of the worst pair's mean, nats
	Top1   float64 `json:"top1"`    // mean
	TTFT   float64 `json:"ttft_ms"` // median
	// Speedup is the median.
	Speedup float64 `json:"speedup"`
	// Right counts answers with what the pair expects, of Expected.
	Right    int `json:"right"`
	Expected int `json:"expected"`
}

// summariseTrials keeps the order in which trials first occur.
func summariseTrials(results []Result, of func(*Result) []Trial) []TrialSummary {
	var names []string
	by := map[string][]Trial{}
	expected := map[string]int{}
	for i := range results {
		for _, t := range of(&results[i]) {
			if by[t.Name] == nil {
				names = append(names, t.Name)
			}
			by[t.Name] = append(by[t.Name], t)
			expected[t.Name] += count(results[i].Expected != "" && t.Error == "")
		}
	}
	var out []TrialSummary
	for _, name := range names {
		s := sumUpTrials(by[name])
		s.Expected = expected[name]
		out = append(out, s)
	}
	return out
}

func sumUpTrials(trials []Trial) TrialSummary {
	s := TrialSummary{Name: trials[0].Name, Way: trials[0].Way, Pairs: len(trials)}
	var ttft, speedup []float64
	for _, t := range trials {
		if t.Error != "" {
			s.Errors++
			continue
		}
		s.Work += t.Work
		s.KLMean += t.KLMean
		s.KLMax = max(s.KLMax, t.KLMean)
		s.Top1 += t.Top1
		s.Right += count(t.Right)
		ttft, speedup = append(ttft, t.TTFT), append(speedup, t.Speedup)
	}
	if n := float64(len(ttft)); n > 0 {
		s.Work, s.KLMean, s.Top1 = s.Work/n, s.KLMean/n, s.Top1/n
		s.TTFT, s.Speedup = interval(ttft).Median, interval(speedup).Median
	}
	return s
}
