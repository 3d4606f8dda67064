package proxy

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/semsharekv/semsharekv/bridge"
)

func TestASlotIsKeptUntilTheBackendIsDoneWithIt(t *testing.T) {
	const idle, first, second = `[{},{}]`, `[{"is_processing":true},{}]`, `[{},{"is_processing":true}]`
	// f has a request that broke wait; the backend says what answers has, and then the last of
	// them again. It must ask that often.
	var conversed, unpinned bool
	f := func(name string, o outcome, all bool, asks int32, answers ...string) {
		t.Helper()
		var asked atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		b := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
			i := asked.Add(1)
			if i == asks && asks > int32(len(answers)) {
				cancel() // it would ask for ever
			}
			a := answers[min(int(i), len(answers))-1]
			if a == "" {
				w.WriteHeader(http.StatusNotImplemented)
			}
			_, _ = w.Write([]byte(a))
		})
		d := &decision{req: &request{Conversation: conversed}, isUnpinned: unpinned, sh: &Sharer{backend: bridge.NewBackend(b.URL, "", 0)}, lv: &live{ctx: t.Context()}, all: all}
		if !all {
			d.slot = &slot{id: 1}
		}
		d.awaitIdle(ctx, o)
		if n := asked.Load(); n != asks {
			t.Errorf("%s: it asked %d times, expected %d", name, n, asks)
		}
	}
	gone := outcome{Err: errClientGone, ClientGone: true}
	f("a whole answer", outcome{Status: http.StatusOK}, false, 0, second)
	f("not yet begun", gone, false, 5, idle, second, second, idle, idle)
	f("the backend broke off", outcome{Err: errNoAnswer}, false, 3, second, idle, idle)
	f("another slot is at work", gone, false, 2, first, first)
	f("one of all is at work", gone, true, 3, first, idle, idle)
	f("the backend does not tell", gone, false, 1, "")
	f("the sidecar ends", gone, false, 4, second)
	unpinned = true
	f("the backend chose the slot", gone, false, 0, second)
}
