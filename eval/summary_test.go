package eval

import (
	"math"
	"testing"
)

func TestInterval(t *testing.T) {
	got := interval([]float64{3, 1, 2})
	if got.Median != 2 || got.Mean != 2 || got.Min != 1 || got.Max != 3 || got.Low < 1 || got.High > 3 || got.Low > got.High {
		t.Fatalf("got %+v", got)
	}
	if again := interval([]float64{2, 3, 1}); again != got {
		t.Fatalf("the same values give %+v, then %+v", got, again)
	}
	if one := interval([]float64{7}); one.Low != 7 || one.High != 7 {
		t.Fatalf("one value: %+v", one)
	}
	even := interval([]float64{1, 2, 3, 10})
	if even.Median != 2.5 {
		t.Fatalf("an even number: %+v", even)
	}
}

func TestSummarise(t *testing.T) {
	results := []Result{
		{ID: "1", Group: "b", Decision: "shared", Speedup: 10, KLMean: .02, SameAnswer: true},
		{ID: "2", Group: "a", Decision: "cold", Speedup: 1, Expected: "45", AnswerCold: "45 days", AnswerShared: "14 days"},
		{ID: "3", Group: "b", Error: "broken", Speedup: 1e9},
		{ID: "4", Group: "b", Decision: "shared", Speedup: 20, KLMean: .04},
	}
	groups := summarise(results)
	b := groups["b"]
	if b.Pairs != 3 || b.Errors != 1 || b.Decisions["shared"] != 2 || b.SameAnswer != 1 || b.Metrics["speedup"].Median != 15 {
		t.Fatalf("got %+v", b)
	}
	a := groups["a"]
	if a.Expected != 1 || a.RightCold != 1 || a.RightShared != 0 {
		t.Fatalf("got %+v", a)
	}
	if cold := a.Metrics["kl_mean"]; cold.Mean != 0 || cold.Max != 0 {
		t.Fatalf("a group that stayed cold has a KL of %+v", cold)
	}
	if kl := groups[everything].Metrics["kl_mean"]; math.Abs(kl.Mean-.03) > 1e-9 || kl.Min != .02 {
		t.Fatalf("two pairs shared, KL .02 and .04, and one cold: got %+v", kl)
	}
	if all := groups[everything]; all.Pairs != 4 || all.Metrics["speedup"].Median != 10 {
		t.Fatalf("got %+v", all)
	}
	if order := groupNames(results); len(order) != 2 || order[0] != "b" {
		t.Fatalf("order %v", order)
	}
}
