package proxy

import (
	"reflect"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
)

// A level leaves out of the plan what it names, for the request at hand, and only where
// the agent fills the slot.
func TestLevelLeavesOut(t *testing.T) {
	planned := configs.Policy{Seam: 64, AgentFollowers: 1, CriticalFollowers: 4, Unrepaired: configs.UnrepairedCold}
	f := func(l Level, slot bool, seam, followers int) {
		t.Helper()
		d := decision{lv: &live{}, level: &l, trial: &Trial{Slot: slot}, req: &request{Policy: planned}}
		d.applyLeftOut()
		want := planned
		want.Seam, want.AgentFollowers = seam, followers
		if !reflect.DeepEqual(d.req.Policy, want) {
			t.Errorf("%+v: %+v, want %+v", l, d.req.Policy, want)
		}
	}
	f(Level{}, false, 64, 1)
	f(Level{LeftOut: LeftOut{Seams: .75}}, false, 16, 1)
	f(Level{LeftOut: LeftOut{Seams: 1, Followers: true}}, false, 0, 0)
	f(Level{LeftOut: LeftOut{Seams: .5}, ShareFirst: .6}, false, 32, 1)
	f(Level{LeftOut: LeftOut{Seams: .5, Followers: true}}, true, 64, 1)
	planned.Seam, planned.AgentFollowers = 128, 4 // what a route asks for beyond the default stays
	f(Level{LeftOut: LeftOut{Seams: .5, Followers: true}}, false, 96, 3)
	planned.Seam, planned.AgentFollowers = 32, 0
	f(Level{LeftOut: LeftOut{Seams: .5, Followers: true}}, false, 16, 0)
}
