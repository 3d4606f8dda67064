package proxy

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/matcher"
)

// TestSharingRehearsesOpeningsInIdleTime has two passages exchanged: the one that opened
// the reference must come out of what was computed of it behind the other, and the slot
// must hold what it held before.
func TestSharingRehearsesOpeningsInIdleTime(t *testing.T) {
	const share = .25
	s := startSharing(t, lab.BackendOptions{Context: 4096, Slots: 1}, func(c *configs.Config) { c.Store.Rehearse = share })
	first, second := tale("1812")+"\n\n", unrelated+"\n\n"+strings.ToUpper(unrelated)+"\n\n"
	prompt := first + second + "What is it about?"
	r := s.complete(prompt)
	s.want(r, "cold")
	n := len(r.report.Tokens)
	done := s.server.metrics.Rehearsals.WithLabelValues("done")
	for end := time.Now().Add(2 * time.Minute); testutil.ToFloat64(done) == 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was rehearsed")
		}
	}
	if got := s.references(); len(got) != 1 {
		t.Fatalf("references %v: expected one, in the place of the first", got)
	}
	holds := func(when string) {
		t.Helper()
		if r := s.complete(prompt); r.state() != "exact" || r.report.CacheN != n-1 {
			t.Errorf("the same prompt %s: %s, %d of %d tokens in the slot: expected all but the last", when, r.did, r.report.CacheN, n)
		}
	}
	holds("after the rehearsal")
	lv := s.server.sharer.live.Load()
	err := s.server.sharer.inSlot(t.Context(), lv, "a tenant", func(slot int) error {
		return errors.Join(bridge.ErrInterrupted, s.server.sharer.backend.Erase(t.Context(), slot))
	})
	if !errors.Is(err, bridge.ErrInterrupted) || !interrupted(err) {
		t.Errorf("a rehearsal that is broken off: error %v", err)
	}
	holds("after one that was broken off")

	r = s.complete(second + first + "What is it about?")
	s.want(r, "shared")
	copied := 0
	for _, p := range r.report.Plan {
		if p.Reason == matcher.Reused && int(p.Pos) > n {
			copied++
		}
	}
	if want := int(share * float64(n)); copied < want/2 || copied > want || r.report.RestoreFailed {
		t.Errorf("%d tokens come out of the copy, want most of %d", copied, want)
	}

	time.Sleep(2 * rehearsalPoll)
	if got := testutil.ToFloat64(done); got != 1 {
		t.Errorf("%v rehearsals: one was enough", got)
	}
}

func TestLongestMessage(t *testing.T) {
	control := func(token int32) bool { return token == 0 }
	f := func(tokens []int32, from, to int) {
		t.Helper()
		if a, b := longestMessage(tokens, control); a != from || b != to {
			t.Errorf("%v: [%d, %d), want [%d, %d)", tokens, a, b, from, to)
		}
	}
	f(nil, 0, 0)
	f([]int32{0}, 0, 0)
	f([]int32{1, 2, 3}, 0, 3)
	f([]int32{0, 1, 0, 0, 2, 3, 4, 0, 5, 6}, 4, 7)
	f([]int32{1, 0, 2, 3}, 2, 4)
}
