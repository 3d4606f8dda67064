package proxy

import (
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
