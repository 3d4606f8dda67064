package proxy

import (
	"math"
	"testing"

	"github.com/semsharekv/semsharekv/matcher"
)

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
		c := newCosts(probed, 1000)
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
	c := newCosts(0, 0)
	c.prefilled(0, 10, 5)
	if ms := c.model().Prefill(0, 10); ms != 0 {
		t.Errorf("10 tokens take %g ms where nothing is known: expected 0", ms)
	}
	c.prefilled(0, 1000, 1000)
	if ms := c.model().Prefill(0, 1000); !(ms > 0 && ms < 2000) {
		t.Errorf("1000 tokens take %g ms, once measured at 1000", ms)
	}
}
