package eval

import "testing"

func TestTimesAreMedians(t *testing.T) {
	var r Result
	times := times{cold: []float64{900, 1000, 5000}, shared: []float64{400, 100, 90}}
	times.put(&r)
	if r.TTFTCold != 1000 || r.TTFTShared != 100 || r.Speedup != 10 || r.Repeats != 3 {
		t.Errorf("%v ms cold, %v ms shared, %vx of %d: expected 1000, 100, 10x of 3", r.TTFTCold, r.TTFTShared, r.Speedup, r.Repeats)
	}
}
