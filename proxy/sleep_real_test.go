package proxy

import (
	"context"
	"path/filepath"
	"testing"
	"time"

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
