package proxy

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// agentLibrary is built by make csrc.
func agentLibrary(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../bin/libsemshare-agent.so")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("run make csrc first: %v", err)
	}
	return path
}

func (s *sharing) live() *live { return s.server.sharer.live.Load() }

// TestSharingByTheAgentRecomputesInTheMiddle: numbers all over the prompt change,
// which the slot way would repair in as many stages.
func TestSharingByTheAgentRecomputesInTheMiddle(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 4096, Preload: agentLibrary(t)}, func(c *configs.Config) { c.Backend.Way = "agent" })
	if !s.live().agent() {
		t.Fatalf("the agent is in the server and not used: %s", *s.live().whyNoAgent.Load())
	}
	text := func(n string) string {
		return "Page " + n + ". " + tale("18"+n) + " Page " + n + " ends; see page " + n + ". " + unrelated
	}
	s.want(s.complete(text("12")), "cold")
	direct := s.direct(text("47"))
	r := s.complete(text("47"))
	s.want(r, "shared")
	if d := farthest(topLogprobs(direct), topLogprobs(r.body)); d > 0.5 {
		t.Errorf("the log-probabilities are up to %.2f off the cold ones", d)
	}
	if n := len(r.report.Tokens); r.report.CacheN < n*8/10 || r.report.Recomputed == 0 || r.report.Recomputed > n/2 {
		t.Errorf("of %d tokens %d were in the cache and %d recomputed: expected most and some", n, r.report.CacheN, r.report.Recomputed)
	}
	leftovers, err := filepath.Glob(filepath.Join(s.backend.SlotDir, "*.recipe*"))
	if err != nil || len(leftovers) > 0 {
		t.Errorf("%v were left behind (%v): expected nothing", leftovers, err)
	}
}

// TestSharingWithoutAnAgentGoesTheSlotWay: a stock server, and one where the agent
// is not wanted.
func TestSharingWithoutAnAgentGoesTheSlotWay(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	if s.live().agent() {
		t.Fatal("an agent was found in a stock server")
	}
	t.Log(*s.live().whyNoAgent.Load())
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete(tale("1847")), "shared")
}

// TestSharingGoesOnWhenTheAgentFails: the requests go cold, and after three in a row the next
// ones go the slot way.
func TestSharingGoesOnWhenTheAgentFails(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{Preload: agentLibrary(t)}, nil)
	s.want(s.complete(tale("1812")), "cold")
	rope := *s.live().probed.RoPE
	rope.HeadDim = 2 * rope.HeadDim // what the agent must refuse
	s.live().probed.RoPE = &rope
	for i, year := range []string{"1847", "1848", "1849"} {
		if !s.live().agent() {
			t.Errorf("after %d failures the agent is no longer used", i)
		}
		s.want(s.complete(tale(year)), "cold")
		if err := s.server.sharer.EmptySlots(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if s.live().agent() {
		t.Error("the agent failed three times and is still used")
	}
	s.want(s.complete(tale("1913")), "shared")
}

// TestRetentionKeepsFewerCells: the slot of a shared prompt holds a share of its cells,
// and nothing that is made of it becomes a reference, however much is allowed.
func TestRetentionKeepsFewerCells(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 4096, Slots: 1, Threads: 1, Preload: agentLibrary(t)}, func(c *configs.Config) {
		c.Backend.Way, c.Defaults.Retention = "agent", 0.58
		c.Store.MaxGeneration, c.Store.Novelty = 1000, 1
	})
	s.want(s.complete(tale("1812")), "cold")
	r := s.complete(tale("1847"))
	s.want(r, "shared")
	if n := len(r.report.Tokens); r.report.CacheN < n*8/10 || r.report.Cells > n*65/100 {
		t.Errorf("of %d tokens %d were in the cache, in %d cells: expected most, in 58 %%", n, r.report.CacheN, r.report.Cells)
	}
	more := tale("1847") + unrelated
	s.want(s.complete(more), "exact")
	if n := s.live().store.Stats().References; n != 1 {
		t.Errorf("%d references: expected the first prompt's alone", n)
	}
}
