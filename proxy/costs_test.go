package proxy

import (
	"math"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// slow is a backend of which only the first prefill was timed, at ms a token.
func slow(ms float64) *bridge.Probed {
	return &bridge.Probed{Readings: []bridge.Reading{{N: 96, MS: 96 * ms}}}
}

// gpu is an H100 that takes long ms for 1,024 tokens: from few to 64 take about as long,
// and what the agent computes takes 30 ms whatever it is.
func gpu(long float64) *bridge.Probed {
	return &bridge.Probed{
		Readings:  []bridge.Reading{{N: 1024, MS: long}, {At: 1024, N: 1, MS: 4}, {At: 1024, N: 8, MS: 4}, {At: 1024, N: 64, MS: max(5, long/16)}},
		AgentTook: bridge.AgentReading{N: 1024, Computed: 64, Recompute: 30 + long/16, Rest: 20},
	}
}

// TestCostsTellWhereSharingPays: of a prompt of which one token in thirty differs a GPU
// with a small model gains nothing at 2,500 tokens, one with a larger model gains at
// 5,000, and a CPU at any length.
func TestCostsTellWhereSharingPays(t *testing.T) {
	const bytesPerToken = 32 << 10
	f := func(p *bridge.Probed, n int, want bool) {
		t.Helper()
		c := newCosts(p, bytesPerToken)
		m := c.model()
		plan := &matcher.Plan{Tokens: make([]matcher.PlanToken, n)}
		for i := range plan.Tokens {
			plan.Tokens[i].Pos = int32(i)
			if i%30 == 29 {
				plan.Tokens[i].Reason = matcher.Unmatched
			}
		}
		s := matcher.NewBatch(plan, m, false, func(*matcher.Plan) bool { return false })
		if got := s.Cost <= gain*s.Cold; got != want {
			t.Errorf("%d tokens take %.0f ms shared, %.0f cold: pays is %v, want %v", n, s.Cost, s.Cold, got, want)
		}
		if !want {
			return
		}
		if least := c.least(n, true); least > gain*s.Cold {
			t.Errorf("%d tokens take %.0f ms shared, %.0f cold, yet they count as hopeless at %.0f", n, s.Cost, s.Cold, least)
		}
	}
	f(gpu(24), 2500, false)
	f(gpu(100), 5000, true)
	f(slow(7), 200, true)
	f(slow(7), 2500, true)
}

// TestCostsOfShortBatches: what was read is met, what lies between is in between, and a
// backend of which only the first prefill was timed is taken for a CPU.
func TestCostsOfShortBatches(t *testing.T) {
	m := newCosts(gpu(24), 1000).model()
	f := func(at, n int, least, most float64) {
		t.Helper()
		if ms := m.Prefill(at, at+n); ms < least*.99 || ms > most*1.01 {
			t.Errorf("%d tokens behind %d take %.2f ms, want %g to %g", n, at, ms, least, most)
		}
	}
	f(0, 1024, 24, 24)
	f(1024, 1, 4, 4)
	f(1024, 2, 4, 4)
	f(1024, 8, 4, 4)
	f(1024, 32, 4, 5)
	f(1024, 64, 5, 5)
	f(1024, 256, 5, 14)
	m = newCosts(slow(7), 1000).model()
	if m.Short != shortBatches || math.Abs(m.Token-7) > .1 {
		t.Errorf("a token of a slow backend takes %g ms, in short batches %v times as much: want 7 and %v", m.Token, m.Short, shortBatches)
	}
}

// TestCostsLearnTheAgent: whatever is taken for its fixed cost and its price at first, in
// time the model tells what recipes take; and one that was slow teaches little.
func TestCostsLearnTheAgent(t *testing.T) {
	const token = .1 // ms
	f := func(fixed, price float64) {
		t.Helper()
		p := gpu(1024 * token)
		c := newCosts(p, 1000)
		for i := range 200 {
			want := token * float64(50+i%7*100)
			c.cooked(want, bridge.Filled{Tokens: 1000}, bridge.AgentReply{Recompute: fixed + price*want})
		}
		for _, want := range []float64{5, 30, 60} {
			if got, took := c.model().Inside(want), fixed+price*want; math.Abs(got-took) > .2*took {
				t.Errorf("fixed %g ms, price %g: what a prefill takes %g ms for is expected to take %.1f, and takes %.1f", fixed, price, want, got, took)
			}
		}
		before := c.model().Inside(30)
		c.cooked(30, bridge.Filled{Tokens: 1000}, bridge.AgentReply{Recompute: 1e5})
		if got := c.model().Inside(30); got > 1.35*before {
			t.Errorf("after one slow recipe one is expected to take %.1f ms, before it %.1f", got, before)
		}
	}
	f(30, 1.1)
	f(100, 1.1)
	f(30, 3)
	f(15, 2)
}

// TestCostsOfALookUpStayBounded: a time in which the index does not answer is no reason not
// to look anything up ever again.
func TestCostsOfALookUpStayBounded(t *testing.T) {
	c := newCosts(slow(7), 1000)
	for range 20 {
		c.matched(1000, 60_000)
	}
	if ms := c.match.at(1000); ms > maxSlower*c.first.match.at(1000)*1.01 {
		t.Errorf("a look-up is expected to take %.1f ms", ms)
	}
}

// busy is a fill that had to wait for others in every stage, and a minute for its tail.
func (c *costs) busy() {
	c.filled(bridge.Filled{Steps: []bridge.FilledStep{
		{At: 1000, Took: time.Minute, Prefill: bridge.Prefilled{PromptN: 8, PromptMS: 30_000}},
		{At: 1500, Took: time.Minute}}})
	c.prefilled(2000, 1, 60_000)
}

// TestCostsOfSharingStayBounded: that requests had to wait for others is no reason not to
// share anything ever again.
func TestCostsOfSharingStayBounded(t *testing.T) {
	c := newCosts(slow(7), 1000)
	for range 20 {
		c.busy()
	}
	f := func(what string, got, first float64) {
		t.Helper()
		if got > maxSlower*first*1.01 {
			t.Errorf("%s is expected to take %.1f, at first %.1f", what, got, first)
		}
	}
	f("a stage", c.stage.at(1000), c.first.stage.at(1000))
	f("a restore", c.restore.at(1500), c.first.restore.at(1500))
	f("a token by itself", c.short[0], c.first.short[0])
	f("a batch of eight", c.short[3], c.first.short[3])
}

// TestCostsOfARecipeAreTheAgents: how long it waited in the server is no matter.
func TestCostsOfARecipeAreTheAgents(t *testing.T) {
	c := newCosts(gpu(24), 1000)
	for range 100 {
		c.cooked(10, bridge.Filled{Tokens: 1000, Compose: 6 * time.Millisecond, Inject: time.Minute}, bridge.AgentReply{Recompute: 40, Restore: 8})
	}
	if ms := c.restore.at(1000); math.Abs(ms-14) > 1 {
		t.Errorf("what is not computing is expected to take %.1f ms, and took 14", ms)
	}
}

// TestCostsOfSharingFade: where nothing was shared for long it is tried again.
func TestCostsOfSharingFade(t *testing.T) {
	c := newCosts(slow(7), 1000)
	now := c.aged
	c.now = func() time.Time { return now }
	first, least := c.model(), c.least(2000, true)
	for range 20 {
		c.busy()
		c.matched(2000, 60_000)
		c.cooked(10, bridge.Filled{Tokens: 2000}, bridge.AgentReply{Recompute: 60_000})
	}
	if c.least(2000, true) < 2*least {
		t.Fatalf("sharing is expected to take %.1f ms at least, at first %.1f: nothing was learnt", c.least(2000, true), least)
	}
	now = now.Add(20 * halfLife)
	f := func(what string, got, first float64) {
		t.Helper()
		if math.Abs(got-first) > .05*first {
			t.Errorf("%s is expected to take %.2f, at first %.2f", what, got, first)
		}
	}
	f("sharing", c.least(2000, true), least)
	m := c.model()
	f("a stage", m.Stage, first.Stage)
	f("a token by itself", m.Short[0], first.Short[0])
	f("what the agent computes", m.Inside(10), first.Inside(10))
}

// TestCostsLearnThePrefill: whatever the probe said, after some requests the model tells
// what the backend takes, in long batches and in short ones.
func TestCostsLearnThePrefill(t *testing.T) {
	const token, tokenPos, short = 5.0, 0.002, 3.0 // ms, ms a position, times as much in 8 to 15 tokens
	took := func(at, n int) float64 {
		ms := float64(n) * (token + tokenPos*(float64(at)+float64(n)/2))
		if matcher.Octave(n) == 3 {
			ms *= short
		}
		return ms
	}
	f := func(probed float64) {
		t.Helper()
		c := newCosts(slow(probed), 1000)
		for range 30 {
			for _, n := range []int{600, 2000, 4000} {
				c.prefilled(0, n, took(0, n))
			}
			c.prefilled(1000, 10, took(1000, 10))
		}
		m := c.model()
		for _, s := range []matcher.Span{{From: 0, To: 1000}, {From: 0, To: 5000}, {From: 2000, To: 3000}, {From: 500, To: 512}} {
			want := took(s.From, s.To-s.From)
			if got := m.Prefill(s.From, s.To); math.Abs(got-want) > 0.05*want {
				t.Errorf("probed %g ms: tokens %d to %d take %.1f ms, expected %.1f", probed, s.From, s.To, got, want)
			}
		}
	}
	f(5)
	f(50)
	f(0.5)
}

// TestCostsWithoutAPrice: a backend that says nothing of its times is no reason for
// costs that are not numbers.
func TestCostsWithoutAPrice(t *testing.T) {
	c := newCosts(&bridge.Probed{}, 0)
	c.prefilled(0, 10, 5)
	if ms := c.model().Prefill(0, 10); ms != 0 {
		t.Errorf("10 tokens take %g ms where nothing is known: expected 0", ms)
	}
	c.prefilled(0, 1000, 1000)
	if ms := c.model().Prefill(0, 1000); !(ms > 0 && ms < 2000) {
		t.Errorf("1000 tokens take %g ms, once measured at 1000", ms)
	}
}
