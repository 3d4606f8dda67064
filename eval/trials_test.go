package eval

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/semsharekv/semsharekv/matcher"
)

// TestTrialsLeaveAPlanThatCanBeCarriedOut: no token without a source is taken over,
// and the last one, behind which the server goes on, is left to its source.
func TestTrialsLeaveAPlanThatCanBeCarriedOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := make([]matcher.PlanToken, rapid.IntRange(2, 60).Draw(t, "tokens"))
		for i := range plan {
			plan[i] = rapid.SampledFrom([]matcher.PlanToken{
				{Ref: 0, Pos: int32(i)}, {Ref: -1, Reason: matcher.Unmatched}, {Ref: 0, Pos: int32(i), Reason: matcher.Seam},
			}).Draw(t, "token")
		}
		plan[len(plan)-1] = matcher.PlanToken{Ref: 0, Pos: 3}
		before := (&matcher.Plan{Tokens: plan}).Recomputed()
		for _, change := range []func([]matcher.PlanToken){recomputeRandom, recomputeNothing} {
			change(plan)
			for i, p := range plan {
				if p.Ref < 0 && p.Reason == matcher.Reused {
					t.Fatalf("token %d is taken over from nowhere", i)
				}
			}
			if got := (&matcher.Plan{Tokens: plan}).Recomputed(); got != before {
				t.Fatalf("%d tokens are recomputed, want %d", got, before)
			}
			if plan[len(plan)-1].Reason != matcher.Reused {
				t.Fatal("the last token is not taken over")
			}
			before = 0
		}
	})
}

func TestReportShowsTrials(t *testing.T) {
	r := sample()
	r.Pairs[0].Expected = "45"
	r.Pairs[0].Ablations = []Trial{{Name: "without <rotation>", Way: "agent", Work: .02, KLMean: .4}}
	r.Pairs[0].Trials = []Trial{
		{Name: "little", Way: "agent", Work: .1, KLMean: .02, TTFT: 100, Right: true},
		{Name: "much", Way: "slot", Work: .3, KLMean: .01, TTFT: 300},
		{Name: "none", Way: "slot", Error: "not shared"},
	}
	r.Summary.Ablations = summariseTrials(r.Pairs, func(r *Result) []Trial { return r.Ablations })
	r.Summary.Frontier = summariseTrials(r.Pairs, func(r *Result) []Trial { return r.Trials })
	if s := r.Summary.Frontier; len(s) != 3 || s[0].Right != 1 || s[0].Expected != 1 || s[2].Errors != 1 || s[2].Expected != 0 {
		t.Fatalf("got %+v", s)
	}
	b, err := r.html()
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, want := range []string{"<h2>Ablations</h2>", "without &lt;rotation&gt;", "KL against recomputed share", "a-1: 0.3, 300"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(string(must(sample().html())), "Ablations") {
		t.Error("a page without trials shows them")
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
