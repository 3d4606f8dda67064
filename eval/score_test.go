package eval

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-9 }

// of makes a distribution over tokens 0, 1, … of probabilities.
func of(p ...float64) distribution {
	var d distribution
	for i, x := range p {
		d.tokens = append(d.tokens, int32(i))
		d.logprobs = append(d.logprobs, math.Log(x))
	}
	return d
}

func TestKL(t *testing.T) {
	f := func(p, q distribution, want float64) {
		t.Helper()
		if got := kl(p, q); !near(got, want) {
			t.Fatalf("got %g, want %g", got, want)
		}
	}
	f(of(.5, .3), of(.5, .3), 0)
	// Two tokens and the rest: .5, .25, .25 against .25, .5, .25.
	f(of(.5, .25), of(.25, .5), .5*math.Log(2)+.25*math.Log(.5))
	// The rest counts as one bucket: .5, .5 against .5, .25 and .25.
	f(of(.5), of(.25), .5*math.Log(2)+.5*math.Log(.5/.75))
	// A token that only one lists is part of the rest in both.
	p, q := of(.5, .4), of(.5)
	f(p, q, 0)
	// A token that is likely in one and unlisted in the other is not lost.
	q = distribution{tokens: []int32{9}, logprobs: []float64{math.Log(.99)}}
	p = of(.9)
	if got := kl(p, q); got != 0 { // no token in common: all is rest
		t.Fatalf("got %g", got)
	}
}

func TestKLIsNeverNegativeAndZeroForItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "n")
		draw := func(name string) distribution {
			x := rapid.SliceOfN(rapid.Float64Range(.001, 1), n+1, n+1).Draw(t, name)
			sum := 0.0
			for _, v := range x {
				sum += v
			}
			for i := range x {
				x[i] /= sum
			}
			return of(x[:n]...)
		}
		p, q := draw("p"), draw("q")
		if kl(p, q) < 0 || kl(p, p) > 1e-9 {
			t.Fatalf("kl(p, q) = %g, kl(p, p) = %g", kl(p, q), kl(p, p))
		}
	})
}

func TestCompare(t *testing.T) {
	cold := []distribution{of(.6, .4), of(.5, .5)}
	shared := []distribution{of(.6, .4), {tokens: []int32{1, 0}, logprobs: []float64{math.Log(.75), math.Log(.25)}}}
	q := compare([]int32{0, 0}, cold, shared)
	second := .5*math.Log(.5/.25) + .5*math.Log(.5/.75)
	if !near(q.mean, second/2) || !near(q.worst, second) || q.top1 != .5 || !near(q.nllDelta, math.Log(2)/2) {
		t.Fatalf("got %+v, want a KL of %g at the second position", q, second)
	}
	if q := compare(nil, nil, nil); q.mean != 0 || q.top1 != 0 {
		t.Fatalf("an empty answer: %+v", q)
	}
}

func TestRougeL(t *testing.T) {
	f := func(candidate, reference string, want float64) {
		t.Helper()
		if got := rougeL(candidate, reference); !near(got, want) {
			t.Fatalf("%q against %q: %g, want %g", candidate, reference, got, want)
		}
	}
	f("the cat sat", "The cat sat.", 1)
	f("", "", 1)
	f("", "a", 0)
	f("x y", "a b", 0)
	f("the cat sat", "the dog sat", 2.0/3)
	f("a b", "a b c d", 2*1*.5/1.5)
}

func TestSays(t *testing.T) {
	f := func(answer, expected string, want bool) {
		t.Helper()
		if says(answer, expected) != want {
			t.Fatalf("%q says %q: want %v", answer, expected, want)
		}
	}
	f("It is 45 days.", "45", true)
	f("It is 145 days.", "45", false)
	f("by Tobias  Lindqvist, who", "Tobias Lindqvist", true)
	f("Lindqvist, Tobias", "Tobias Lindqvist", false)
	f("at 23:15.", "23:15", true)
}
