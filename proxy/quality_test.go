package proxy

import (
	"reflect"
	"testing"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// A level leaves out of the plan what it names, for the request at hand, and only where
// the agent fills the slot.
func TestLevelLeavesOut(t *testing.T) {
	planned := configs.Policy{Seam: 64, AgentFollowers: 1, CriticalFollowers: 6, Critical: usual.Critical, Unrepaired: configs.UnrepairedCold}
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
}

// Where a policy plans less than calibrations do, a level takes off nothing more.
func TestALevelLeavesOutNothingOfAPlanWithLess(t *testing.T) {
	f := func(change func(*configs.Policy), shortened bool) {
		t.Helper()
		seams := func(target float64) int {
			d := planning(target)
			change(&d.req.Policy)
			n := 0
			for _, token := range d.drawPlan(t.Context(), jumping()).Tokens {
				if token.Reason == matcher.Seam {
					n++
				}
			}
			return n
		}
		if all, got := seams(0), seams(.012); all == 0 || (got < all) != shortened {
			t.Errorf("%d tokens of seams are computed without a target, %d with one that is met without them", all, got)
		}
	}
	f(func(*configs.Policy) {}, true)
	f(func(p *configs.Policy) { p.Seam, p.AgentFollowers, p.CriticalFollowers = 128, 4, 12 }, true)
	f(func(p *configs.Policy) { p.Unrepaired = configs.UnrepairedAccept }, false)
	f(func(p *configs.Policy) { p.Critical = []string{"number"} }, false)
	f(func(p *configs.Policy) { p.AgentFollowers = 0 }, false)
	f(func(p *configs.Policy) { p.CriticalFollowers = 0 }, false)
	f(func(p *configs.Policy) { p.Seam = 32 }, false)
	f(func(p *configs.Policy) {
		p.Unrepaired, p.Critical, p.AgentFollowers, p.CriticalFollowers, p.Seam = configs.UnrepairedAccept, nil, 0, 0, 8
		PlanAsUsual(p)
	}, true)
}

// planning is a request by the default policy and the target, with a model of which seams
// need not be computed.
func planning(target float64) *decision {
	level := []Level{{LeftOut: LeftOut{Seams: .75}, KL: .001}}
	lv := &live{probed: &bridge.Probed{RoPE: &bridge.RoPE{}}}
	lv.calibration.Store(&Calibration{Kinds: []Kind{{Levels: level}, {Displaced: true, Levels: level}}})
	d := &decision{lv: lv, req: &request{Policy: usual}}
	d.req.Policy.Quality.KL = target
	return d
}

// jumping is a prompt whose second half stands elsewhere in its reference.
func jumping() *matcher.Alignment {
	const n, jump = 400, 500
	a := &matcher.Alignment{Refs: []matcher.Reference{{Tokens: make([]int32, n+jump)}}}
	for i := range n {
		a.Target = append(a.Target, 0)
		a.Matches = append(a.Matches, matcher.Match{Pos: int32(i + i/(n/2)*jump), Similarity: 1})
	}
	return a
}
