package proxy

import (
	"math"
	"reflect"
	"regexp"
	"testing"
)

func TestLevelIsTheCheapestThatMeetsTheTarget(t *testing.T) {
	c := &Calibration{Model: "m", Kinds: []Kind{{Pairs: 10, Levels: []Level{
		{KL: .08, KLError: .005}, {KL: .03, KLError: .005, ShareFirst: .6, Work: .1}, {KL: .02, ShareFirst: .6, Work: .2}, {KL: .025, ShareFirst: .6, Work: .5},
	}}}}
	f := func(target float64, want int) {
		t.Helper()
		if got := c.Level(target, false); got != &c.Kinds[0].Levels[want] {
			t.Errorf("target %g: got %+v, want level %d", target, *got, want)
		}
	}
	f(1, 0)
	f(.09, 0)
	f(.085, 1) // the error counts
	f(.04, 1)
	f(.03, 2)
	f(.001, 2) // none does: the best
	if l := c.Level(1, true); l != nil {
		t.Errorf("a kind that was not measured has level %+v", *l)
	}
}

// TestEachKindMeetsTheTarget: what one kind does not lose is not left to the other.
func TestEachKindMeetsTheTarget(t *testing.T) {
	c := &Calibration{Model: "m", Kinds: []Kind{
		{Pairs: 10, Levels: []Level{{KL: .004, Work: .03}, {KL: .002, Work: .05}}},
		{Displaced: true, Pairs: 10, Levels: []Level{{KL: .08, Work: .06}, {KL: .05, Work: .09}, {KL: .018, KLError: .01, Work: .3}}},
	}}
	f := func(target float64, few, displaced int) {
		t.Helper()
		for i, want := range []int{few, displaced} {
			if got := c.Level(target, i == 1); got != &c.Kinds[i].Levels[want] {
				t.Errorf("target %g, kind %d: got %+v, want level %d", target, i, *got, want)
			}
		}
	}
	f(.08, 0, 0)
	f(.05, 0, 1)
	f(.04, 0, 2)
	f(.003, 1, 2)
}

func TestCalibrationIsChecked(t *testing.T) {
	f := func(c Calibration, good bool) {
		t.Helper()
		if err := c.check("m"); (err == nil) != good {
			t.Errorf("%+v: %v", c, err)
		}
	}
	of := func(l Level) Calibration {
		return Calibration{Model: "m", Kinds: []Kind{{Pairs: LeastPairs, Levels: []Level{l}}}}
	}
	f(of(Level{}), true)
	f(Calibration{Model: "n", Kinds: of(Level{}).Kinds}, false)
	f(Calibration{Model: "m"}, false)
	f(Calibration{Model: "m", Kinds: []Kind{{Pairs: LeastPairs}}}, false)
	f(Calibration{Model: "m", Kinds: []Kind{{Levels: []Level{{}}}}}, false)
	f(Calibration{Model: "m", Kinds: []Kind{{Pairs: LeastPairs - 1, Levels: []Level{{}}}}}, false)
	f(Calibration{Model: "m", Kinds: []Kind{{Pairs: LeastPairs, Levels: []Level{{}}}, {Pairs: LeastPairs, Displaced: true, Levels: []Level{{}}}}}, true)
	f(Calibration{Model: "m", Kinds: []Kind{{Pairs: LeastPairs, Levels: []Level{{}}}, {Pairs: LeastPairs, Levels: []Level{{}}}}}, false)
	f(of(Level{KL: math.NaN()}), false)
	f(of(Level{ShareFirst: 2}), false)
	f(of(Level{ShareFirst: .1, ShareLast: .2}), false)
	f(of(Level{LeftOut: LeftOut{Seams: 1.5}}), false)
	f(of(Level{MinDeviation: -1, ShareFirst: .2}), false)
	f(of(Level{Attended: 1.1}), false)
}

// TestShippedCalibrationsAreValid: each is of a model of its own, and measured on enough.
func TestShippedCalibrationsAreValid(t *testing.T) {
	files, err := shipped.ReadDir("calibrations")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d calibrations are shipped (%v), want those of two models", len(files), err)
	}
	models := map[string]string{}
	for _, f := range files {
		c, err := parseCalibration(shipped.ReadFile("calibrations/" + f.Name()))
		if err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
		key := c.Model
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(key) {
			t.Fatalf("%s has no model key", f.Name())
		}
		if err := c.check(key); err != nil || len(c.Kinds) != 2 {
			t.Fatalf("%s, of model key %q: %+v, %v; want two kinds of prompt", f.Name(), key, c, err)
		}
		if models[key] != "" {
			t.Errorf("%s and %s are of one model", f.Name(), models[key])
		}
		models[key] = f.Name()
		if got := shippedCalibration(key); !reflect.DeepEqual(got, c) {
			t.Errorf("%s is not found by its model key: got %+v", f.Name(), got)
		}
	}
	if c := shippedCalibration("another"); c != nil {
		t.Errorf("another model has a shipped calibration: %+v", c)
	}
}
