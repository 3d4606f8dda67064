package bridge

import (
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

func TestRowsAreAlikeByTheirAngle(t *testing.T) {
	f := func(a, b []float32, want bool) {
		t.Helper()
		if got := (Witness{{1, 2}, a}).Like(Witness{{1, 2}, b}); got != want {
			t.Errorf("%v and %v are alike: %v, want %v", a, b, got, want)
		}
	}
	f([]float32{3, 4}, []float32{3, 4}, true)
	f([]float32{3, 4}, []float32{3.2, 3.9}, true)
	f([]float32{3, 4}, []float32{4, 3}, false)
	f([]float32{0, 0}, []float32{0, 0}, true)
	f([]float32{0, 0}, []float32{3, 4}, false)
	f([]float32{3, 4}, []float32{3, 4, 0}, false)
	if (Witness{{1}}).Like(Witness{{1}, {1}}) {
		t.Error("witnesses of more and of fewer layers are alike")
	}
}

// Kinds of attention are as far from each other as rounding takes a server from itself.
func TestTheWitnessTellsWeightsAndNoRounding(t *testing.T) {
	f := func(a, b lab.BackendOptions, want bool) {
		t.Helper()
		first, second := witnessOf(t, a), witnessOf(t, b)
		if got := first.Like(second); got != want {
			t.Errorf("alike: %v (%.4f), want %v", got, first.alike(second), want)
		}
	}
	f(lab.BackendOptions{FlashAttention: "on"}, lab.BackendOptions{FlashAttention: "off", Threads: 1, Unified: true}, true)
	f(lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Seed: 1})}, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Seed: 2})}, false)
}

func witnessOf(t *testing.T, o lab.BackendOptions) Witness {
	t.Helper()
	got := proberOf(t, o).mustProbe(t)
	if len(got.Witness) != 6 {
		t.Fatalf("%d rows, want keys and values of three layers", len(got.Witness))
	}
	return got.Witness
}
