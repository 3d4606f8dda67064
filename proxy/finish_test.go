package proxy

import (
	"errors"
	"net/http"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestWhatTheBackendMadeOfAFilledSlot: the slot is emptied unless cache_n says that it holds
// what was filled in, or the answer was broken off by somebody else.
func TestWhatTheBackendMadeOfAFilledSlot(t *testing.T) {
	f := func(name string, change func(*decision), o outcome, taken bool, asked []string, strikes int32, mismatches float64) {
		t.Helper()
		s := startStandIn(t, 1)
		s.lv.strikes.Store(1)
		d := s.holding("us", numbered(10))
		d.State, d.expect = StateShared, 8
		change(d)
		if got := d.verify(o); got != taken || !slices.Equal(s.asked, asked) || s.lv.strikes.Load() != strikes {
			t.Errorf("%s: taken is %v, asked %q, %d strikes; want %v, %q, %d", name, got, s.asked, s.lv.strikes.Load(), taken, asked, strikes)
		}
		if got := testutil.ToFloat64(s.sh.metrics.Mismatches); got != mismatches || d.report.RestoreFailed != (mismatches > 0) {
			t.Errorf("%s: %v mismatches counted, reported: %v; want %v", name, got, d.report.RestoreFailed, mismatches)
		}
	}
	as := func(*decision) {}
	answered := func(cacheN int) outcome { return outcome{Status: http.StatusOK, CacheN: cacheN, PromptN: 10 - cacheN} }
	status := func(n int) outcome { return outcome{Status: n, CacheN: -1, PromptN: -1} }
	broken := func(err error, gone bool) outcome {
		return outcome{Status: http.StatusOK, Err: err, ClientGone: gone, CacheN: -1, PromptN: -1}
	}
	erased := []string{"erase 0"}
	f("as filled", as, answered(8), true, nil, 0, 0)
	f("not told", as, status(http.StatusOK), true, nil, 1, 0)
	f("less", as, answered(7), false, erased, 2, 1)
	f("more", as, answered(9), false, erased, 2, 1)
	f("nothing", as, answered(0), false, erased, 2, 1)
	f("less, of a guessed prompt", func(d *decision) { d.req.Endpoint = EndpointMessages }, answered(7), false, erased, 1, 1)
	f("less, where slots are volatile", func(d *decision) { d.lv.probed.Volatile = true }, answered(7), false, erased, 1, 1)
	f("less, beside an unpinned request", func(d *decision) { d.sh.unpinned.sent.Add(1) }, answered(7), false, erased, 1, 1)
	failed := outcome{Status: http.StatusOK, Failed: true, CacheN: -1, PromptN: -1}
	f("failed", as, status(http.StatusInternalServerError), false, erased, 2, 0)
	f("failed, though it said that all is well", as, failed, false, erased, 1, 0)
	f("overloaded", as, status(http.StatusServiceUnavailable), false, erased, 1, 0)
	f("refused", as, status(http.StatusBadRequest), false, erased, 1, 0)
	f("broke off", as, broken(errors.New("reset"), false), false, erased, 1, 0)
	f("the client hung up", as, broken(errClientGone, true), false, nil, 1, 0)
	f("shut down", as, broken(errDraining, false), false, nil, 1, 0)
	cold := func(d *decision) { d.State = StateCold }
	f("failed, not filled", cold, status(http.StatusInternalServerError), false, nil, 1, 0)
	f("failed though it said that all is well, not filled", cold, failed, false, nil, 1, 0)
	f("another count, not filled", cold, answered(3), true, nil, 1, 0)
}

// TestNobodyKnowsWhoseAdaptersComputedAHalfFilledSlot, unless they are the same as before.
func TestNobodyKnowsWhoseAdaptersComputedAHalfFilledSlot(t *testing.T) {
	f := func(had string, taken bool, want string) {
		t.Helper()
		s := startStandIn(t, 1)
		d := s.holding("us", numbered(3))
		d.slot.adapters, d.req.Adapters = had, "[1]"
		d.free(taken, nil)
		if got := s.lv.slots.all[0].adapters; got != want {
			t.Errorf("%q before, taken: %v: the book has %q, want %q", had, taken, got, want)
		}
	}
	f("", true, "[1]")
	f("", false, unknownAdapters)
	f("[1]", false, "[1]")
}
