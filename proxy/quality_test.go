package proxy

import (
	"math"
	"reflect"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
)

func TestLevelIsTheCheapestThatMeetsTheTarget(t *testing.T) {
	c := &Calibration{Model: "m", Levels: []Level{
		{KL: .08, KLError: .005}, {KL: .03, KLError: .005, MostFirst: .6, Work: .1}, {KL: .02, MostFirst: .6, Work: .2}, {KL: .025, MostFirst: .6, Work: .5},
	}}
	f := func(target float64, want int) {
		t.Helper()
		if got := c.Level(target); got != &c.Levels[want] {
			t.Errorf("target %g: got %+v, want level %d", target, *got, want)
		}
	}
	f(1, 0)
	f(.09, 0)
	f(.085, 1) // the error counts
	f(.04, 1)
	f(.03, 2)
	f(.001, 2) // none does: the best
}

func TestCalibrationIsChecked(t *testing.T) {
	f := func(c Calibration, good bool) {
		t.Helper()
		if err := c.check("m"); (err == nil) != good {
			t.Errorf("%+v: %v", c, err)
		}
	}
	f(Calibration{Model: "m", Levels: []Level{{}}}, true)
	f(Calibration{Model: "n", Levels: []Level{{}}}, false)
	f(Calibration{Model: "m"}, false)
	f(Calibration{Model: "m", Levels: []Level{{KL: math.NaN()}}}, false)
	f(Calibration{Model: "m", Levels: []Level{{MostFirst: 2}}}, false)
	f(Calibration{Model: "m", Levels: []Level{{MostFirst: .1, MostLast: .2}}}, false)
	f(Calibration{Model: "m", Levels: []Level{{LeftOut: LeftOut{Seams: 1.5}}}}, false)
	f(Calibration{Model: "m", Levels: []Level{{MinDeviation: -1, MostFirst: .2}}}, false)
	f(Calibration{Model: "m", Levels: []Level{{Attended: 1.1}}}, false)
}

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
