package proxy

import (
	"reflect"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
)

// A level leaves out of the plan what it names, for the request at hand, and only where
// the agent fills the slot.
func TestLevelLeavesOut(t *testing.T) {
	const cold, accept = configs.UnrepairedCold, configs.UnrepairedAccept
	f := func(l Level, slot bool, seam, followers int, u configs.Unrepaired) {
		t.Helper()
		planned := configs.Policy{Seam: 64, AgentFollowers: 1, CriticalFollowers: 4, Unrepaired: cold}
		d := Decision{lv: &live{}, trial: &Trial{Level: &l, Slot: slot}, g: &Generation{Policy: planned}}
		d.lean()
		want := planned
		want.Seam, want.AgentFollowers, want.Unrepaired = seam, followers, u
		if !reflect.DeepEqual(d.g.Policy, want) {
			t.Errorf("%+v: %+v, want %+v", l, d.g.Policy, want)
		}
	}
	f(Level{}, false, 64, 1, cold)
	f(Level{LeftOut: LeftOut{Seams: .75, Near: true}}, false, 16, 1, accept)
	f(Level{LeftOut: LeftOut{Seams: 1, Followers: true}}, false, 0, 0, cold)
	f(Level{LeftOut: LeftOut{Seams: .5}, MostFirst: .6}, false, 32, 1, cold)
	f(Level{LeftOut: LeftOut{Seams: .5, Followers: true, Near: true}}, true, 64, 1, cold)
}
