package proxy

import (
	"testing"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// TestRoomIsMadeWhereSlotsShareCells: more prompts than the cache has cells for, one after
// another, are all shared, in either way.
func TestRoomIsMadeWhereSlotsShareCells(t *testing.T) {
	f := func(way string) {
		t.Run(way, func(t *testing.T) {
			s := startTiny(t, lab.BackendOptions{Context: 5376, Slots: 4, Unified: true, Preload: agentLibrary(t)}, func(c *configs.Config) { c.Backend.Way = way })
			s.want(s.complete(tale("1812")), "cold")
			for _, year := range []string{"1847", "1848", "1849", "1850"} {
				r := s.complete(tale(year))
				s.want(r, "shared")
				if r.report.RestoreFailed {
					t.Errorf("%s: cache_n %d did not confirm what was injected", year, r.report.CacheN)
				}
			}
			if way == "agent" && !s.live().agent() {
				t.Error("the agent is no longer used")
			}
		})
	}
	f("slot")
	f("agent")
}
