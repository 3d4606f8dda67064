package eval

import (
	"math"
	"testing"
)

func TestCalibrationTakesOfEachGroupInTurn(t *testing.T) {
	pairs, err := calibrationPairs(&Options{Limit: 9})
	if err != nil {
		t.Fatal(err)
	}
	groups, ids := map[string]int{}, map[string]bool{}
	for _, p := range pairs {
		groups[p.Group]++
		ids[p.ID] = true
	}
	if len(ids) != 9 || len(groups) != 7 || groups[unrelated] > 0 {
		t.Errorf("got %v of groups %v, want 9 of 7, none unrelated", ids, groups)
	}
	all, err := calibrationPairs(&Options{})
	if err != nil || len(all) < 40 {
		t.Errorf("%d pairs without a limit (%v)", len(all), err)
	}
}

func TestMeanAndError(t *testing.T) {
	results := []Result{{Frontier: []Trial{{KLMean: 1}}}, {}, {Frontier: []Trial{{KLMean: 3}}}}
	mean, e := meanAndError(results, func(t []Trial) float64 { return t[0].KLMean })
	if mean != 2 || math.Abs(e-1) > 1e-9 { // deviation sqrt(2), of two
		t.Errorf("got %g and %g, want 2 and 1", mean, e)
	}
	if complete([]Trial{{}, {Error: "cold"}}, 2) || complete([]Trial{{}}, 2) || !complete([]Trial{{}, {}}, 2) {
		t.Error("a pair is complete when every level was measured")
	}
}
