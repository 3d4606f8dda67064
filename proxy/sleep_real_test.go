package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// TestASleepThatReadsOtherWeightsIsNoticed: nothing else tells of it.
func TestASleepThatReadsOtherWeightsIsNoticed(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	s := startSharing(t, lab.BackendOptions{Model: model, NoRAMCache: true, Sleep: 3}, nil)
	s.server.sharer.Try(&Trial{}) // whether it pays or not
	s.want(s.complete(tale("1812")), "cold")
	s.probedAnew("a new file", func() { replaceModel(t, model, 2) })
	s.want(s.complete(tale("1812")), "cold") // by the old weights, under the new file's key

	within(t, "it sleeps", func() bool { return s.live() == nil })
	time.Sleep(2 * time.Second) // two more rounds of asking
	props, err := s.server.sharer.backend.Look(context.Background())
	if err != nil || !props.Sleeping {
		t.Fatalf("asking has woken it: %+v, %v", props, err)
	}
	if why := s.server.sharer.Ready(); why == nil || why.Error() != asleep {
		t.Errorf("why nothing is shared: %v, want that it sleeps", why)
	}
	s.want(s.complete("It wakes. "+tale("1812")), "cold")
	within(t, "it is looked up again", func() bool {
		s.ready()
		r := s.complete("The new weights. " + tale("1812"))
		s.want(r, "cold")
		return r.report.Reason != coldUnavailable
	})
}

// TestTheFirstRequestAfterARestSeesThatTheBackendSleeps: without it being looked at besides.
func TestTheFirstRequestAfterARestSeesThatTheBackendSleeps(t *testing.T) {
	var asked, sleeps atomic.Int32
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{"total_slots":2,"is_sleeping":` + map[int32]string{0: "false", 1: "true"}[sleeps.Load()] + `}`))
	}))
	defer b.Close()
	sh := &Sharer{log: zerolog.Nop(), metrics: NewMetrics(), backend: bridge.NewBackend(b.URL, "", time.Second)}
	defer sh.backend.Close()
	lv := &live{probed: &bridge.Probed{Props: bridge.Props{Slots: 2}}}
	lv.ctx, lv.cancel = context.WithCancel(context.Background())
	sh.live.Store(lv)
	sh.lookAfterRest()
	sh.lookAfterRest()
	if asked.Load() != 1 || sh.live.Load() == nil {
		t.Fatalf("it was asked %d times by two requests that followed one another, and is live: %v; want once, and that it is", asked.Load(), sh.live.Load() != nil)
	}
	sleeps.Store(1)
	sh.rested.last = time.Now().Add(-leastSleep)
	sh.lookAfterRest()
	if sh.live.Load() != nil {
		t.Error("that it sleeps was not seen")
	}
}
