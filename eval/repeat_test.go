package eval

import (
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/proxy"
)

// A median must not mix cold and shared runs; why a run was cold may differ.
func TestRepetitionsAreDecidedAsTheFirstRun(t *testing.T) {
	f := func(first string, state proxy.State, reason string, good bool) {
		t.Helper()
		err := decidedAs(first, &proxy.Report{State: state, Reason: reason})
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), reason) {
			t.Errorf("%s first, then %s (%s): %v", first, state, reason, err)
		}
	}
	f("shared", proxy.StateShared, "", true)
	f("cold", proxy.StateCold, "time budget", true)
	f("shared", proxy.StateCold, "no gain", false)
	f("cold", proxy.StateShared, "", false)
	f("shared", proxy.StateExact, "", false)
}

func TestTimesAreMedians(t *testing.T) {
	var r Result
	times := times{cold: []float64{900, 1000, 5000}, shared: []float64{400, 100, 90}}
	times.put(&r)
	if r.TTFTCold != 1000 || r.TTFTShared != 100 || r.Speedup != 10 || r.Repeats != 3 {
		t.Errorf("%v ms cold, %v ms shared, %vx of %d: expected 1000, 100, 10x of 3", r.TTFTCold, r.TTFTShared, r.Speedup, r.Repeats)
	}
}
