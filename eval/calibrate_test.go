package eval

import (
	"math"
	"reflect"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
)

func TestCalibrationTakesOfEachGroupInTurn(t *testing.T) {
	pairs, err := calibrationPairs(&Options{Limit: 8})
	if err != nil {
		t.Fatal(err)
	}
	groups, ids := map[string]int{}, map[string]bool{}
	for _, p := range pairs {
		groups[p.Group]++
		ids[p.ID] = true
	}
	for _, group := range calibrating {
		if groups[group] < 1 || groups[group] > 2 {
			t.Errorf("%d pairs of %s: want one or two", groups[group], group)
		}
	}
	if len(ids) != 8 || len(groups) != len(calibrating) {
		t.Errorf("got %v of groups %v, want 8 of %v", ids, groups, calibrating)
	}
	all, err := calibrationPairs(&Options{})
	if err != nil || len(all) < 30 {
		t.Errorf("%d pairs without a limit (%v)", len(all), err)
	}
}

// TestKindsAreReckonedApart: each from its own pairs, of which those count that were
// shared at every level.
func TestKindsAreReckonedApart(t *testing.T) {
	trials := func(n int, kl float64) []Trial {
		out := make([]Trial, n)
		for i := range out {
			out[i] = Trial{KLMean: kl, Work: float64(n-i) / 100}
		}
		return out
	}
	few, many := len(levels(false)), len(levels(true))
	results := []Result{
		{Displaced: .1, Trials: trials(few, 1)}, {Displaced: .9, Trials: trials(many, 10)}, {Displaced: .2}, {Displaced: .3, Trials: trials(few, 3)},
		{Displaced: .8, Trials: append(trials(many-1, 1), Trial{Error: "cold"})},
	}
	k := kind(results, false)
	if k.Pairs != 2 || k.Levels[0].KL != 2 || math.Abs(k.Levels[0].KLError-1) > 1e-9 { // deviation sqrt(2), of two
		t.Errorf("two pairs of KL 1 and 3: got %+v", k)
	}
	for i := 1; i < len(k.Levels); i++ {
		if k.Levels[i].Work < k.Levels[i-1].Work {
			t.Errorf("level %d takes less than the one before: %+v", i, k.Levels)
		}
	}
	if k := kind(results, true); k.Pairs != 1 || len(k.Levels) != many {
		t.Errorf("one displaced pair was complete: got %d pairs, %d levels", k.Pairs, len(k.Levels))
	}
}

// What is measured governs routes of any plan, so the configuration's does not show.
func TestCalibrationsAreOfUsualPlans(t *testing.T) {
	c := configs.Default()
	want := c.Defaults
	want.Quality.KL = 0
	d := &c.Defaults
	d.Unrepaired, d.Critical, d.Seam, d.AgentFollowers, d.CriticalFollowers, d.Retention = configs.UnrepairedAccept, nil, 256, 4, 12, .5
	if got := asUsual(*c).Defaults; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if d.Unrepaired != configs.UnrepairedAccept {
		t.Error("the configuration itself was changed")
	}
}

func TestComplete(t *testing.T) {
	if complete([]Trial{{}, {Error: "cold"}}, 2) || complete([]Trial{{}}, 2) || !complete([]Trial{{}, {}}, 2) {
		t.Error("a pair is complete when every level was measured")
	}
}
