package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// TestARequestThatTakesNoWordAboutTheCacheIsToldWhatIsNotKnown: it keeps no slot from others
// then.
func TestARequestThatTakesNoWordAboutTheCacheIsToldWhatIsNotKnown(t *testing.T) {
	cfg := configs.Default()
	cfg.Limits.SlotWait = time.Millisecond
	f := func(lv *live, earlier int64, want string) {
		t.Helper()
		d := &decision{sh: &Sharer{cfg: cfg, backend: &bridge.Backend{}}, lv: lv, req: &request{Endpoint: EndpointMessages, Apart: true, Scattered: true}}
		if lv != nil {
			d.book = lv.slots
		}
		d.sh.unpinned.sent.Add(earlier)
		d.leaveToBackend(t.Context(), coldScattered)
		if d.unsafe != want || d.all {
			t.Errorf("%d requests from before the probe: %q, has all slots: %t; expected %q, false", earlier, d.unsafe, d.all, want)
		}
	}
	f(nil, 0, unknownSlots)
	f(nil, 1, unknownSlots)
	f(&live{slots: newSlots(2)}, 1, earlierSlots)
}

// TestARequestThatIsSearchedForEverywhereFindsNothingOfOthers: their slots are emptied, or it is
// not sent.
func TestARequestThatIsSearchedForEverywhereFindsNothingOfOthers(t *testing.T) {
	f := func(uncomposed bool, adapted int64, fails, unsafe string, asked ...string) {
		t.Helper()
		s := startStandIn(t, 5)
		for _, sl := range s.lv.slots.all {
			sl.tenant, sl.tokens = "us", numbered(3)
		}
		s.lv.slots.all[1].tenant = "them"
		s.lv.slots.all[2].tokens = nil
		s.lv.slots.all[3].generation = 1
		s.lv.slots.all[4].doubted = true
		s.fails = fails
		s.sh.unpinned.adapted.Add(adapted)
		d := s.decision("us", nil)
		d.req.Endpoint, d.req.Apart, d.req.Scattered, d.req.Uncomposed = EndpointMessages, true, true, uncomposed
		d.leaveToBackend(t.Context(), coldScattered)
		if !slices.Equal(s.asked, asked) || !strings.HasPrefix(d.unsafe, unsafe) || (d.unsafe == "") != (unsafe == "") || !d.all {
			t.Errorf("asked %q, unsafe: %q, has all slots: %v; want %q, %q", s.asked, d.unsafe, d.all, asked, unsafe)
		}
	}
	f(false, 0, "", "", "erase 1", "erase 2", "erase 4")
	f(true, 0, "", "", "erase 1", "erase 2", "erase 3", "erase 4")
	f(false, 0, "erase", unsafeSlots, "erase 1", "erase 2", "erase 4")
	f(false, 1, "", unknownSlots)
}
