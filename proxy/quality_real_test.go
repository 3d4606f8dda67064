package proxy

import (
	"os"
	"reflect"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/matcher"
)

// TestTrialsAndTargets are on one server, since starting one takes longest.
func TestTrialsAndTargets(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 3 * 2048, Slots: 3, Preload: agentLibrary(t)}, func(c *configs.Config) { c.Backend.Way, c.Defaults.Quality.KL, c.Store.MaxGeneration = "agent", 0, 0 })
	if !s.server.sharer.Calibrated() {
		t.Error("the small model comes calibrated; the shipped calibration was not found: is it of another model key? It was made with two slots, and is to be found with any number")
	}
	s.want(s.complete(tale("1812")), "cold")
	aTrialChangesThePlan(t, s)
	aShareOfWhatIsDisplacedIsComputed(t, s)
	aTargetDecidesHowMuchIsComputed(t, s)
}

// aTargetDecidesHowMuchIsComputed: by a calibration that is found at the start, and
// not by one that is damaged. The sidecar has a reference.
func aTargetDecidesHowMuchIsComputed(t *testing.T, s *sharing) {
	t.Helper()
	sh := s.server.sharer
	work := func(s *sharing) float64 {
		t.Helper()
		if err := s.server.sharer.EmptySlots(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := s.complete(tale("1847"))
		s.want(r, "shared")
		return r.report.Work
	}
	plain := work(s)
	c := &Calibration{Kinds: []Kind{{Pairs: LeastPairs, Levels: []Level{{KL: .5, Work: .05}, {KL: .01, ShareFirst: .5, ShareLast: .5, Work: .5}}}}}
	if err := sh.Calibrate(c); err != nil {
		t.Fatal(err)
	}
	if got := work(s); got != plain {
		t.Errorf("without a target %.3f of the prompt were computed, and %.3f once the model was calibrated", plain, got)
	}
	loose, strict := target(s, .6, work), target(s, .02, work)
	if loose != plain || strict < plain+.1 {
		t.Errorf("%.3f were computed without a target, %.3f at one that is met so, %.3f at a hard one: expected as much, and more", plain, loose, strict)
	}
	lv := s.live()
	lv.calibration.Store(nil)
	if sh.loadCalibration(lv); lv.calibration.Load() == nil || lv.calibration.Load().Kinds[0].Levels[1] != c.Kinds[0].Levels[1] {
		t.Error("what was stored is not found again")
	}
	lv.calibration.Store(nil)
	if err := os.WriteFile(sh.calibrationPath(lv.key), []byte(`{"levels":`), 0o600); err != nil {
		t.Fatal(err)
	}
	shipped := shippedCalibration(lv.key)
	if sh.loadCalibration(lv); shipped == nil || !reflect.DeepEqual(lv.calibration.Load(), shipped) {
		t.Error("the stored calibration is damaged, and the one that is shipped is not used")
	}
}

// target is f's figure with a quality target.
func target(s *sharing, kl float64, f func(*sharing) float64) float64 {
	s.server.sharer.Try(&Trial{Policy: func(p *configs.Policy) { p.Quality.KL = kl }})
	defer s.server.sharer.Try(nil)
	return f(s)
}

// aShareOfWhatIsDisplacedIsComputed: of a passage that has come to stand behind other
// text, and of no other. The sidecar has a reference.
func aShareOfWhatIsDisplacedIsComputed(t *testing.T, s *sharing) {
	t.Helper()
	work := func(prompt string, share float64) float64 {
		t.Helper()
		s.server.sharer.Try(&Trial{Policy: func(p *configs.Policy) { p.AgentAttended = share }})
		defer s.server.sharer.Try(nil)
		if err := s.server.sharer.EmptySlots(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := s.complete(prompt)
		s.want(r, "shared")
		return r.report.Work
	}
	moved := unrelated + " " + tale("1812")
	if none, few := work(moved, 0), work(moved, .01); few != none {
		t.Errorf("%.3f of a moved passage's prompt are computed, and %.3f with fewer tokens attended to than a draft takes: expected as much", none, few)
	}
	if without, with := work(moved, 0), work(moved, .5); with < without+.2 || with > without+.5 {
		t.Errorf("%.3f of a moved passage's prompt are computed, and %.3f with half of what is attended to: expected some .3 more", without, with)
	}
	if without, with := work(tale("1847"), 0), work(tale("1847"), .5); with != without {
		t.Errorf("%.3f of an edited prompt are computed, and %.3f with half of what is attended to: expected as much, since all stands where it stood", without, with)
	}
}

// aTrialChangesThePlan: what it takes out of the plan is not computed, and by the
// slot way the same prompt is shared too. The sidecar has a reference.
func aTrialChangesThePlan(t *testing.T, s *sharing) {
	t.Helper()
	try := func(trial *Trial) *Report {
		t.Helper()
		s.server.sharer.Try(trial)
		defer s.server.sharer.Try(nil)
		if err := s.server.sharer.EmptySlots(t.Context()); err != nil {
			t.Fatal(err)
		}
		r := s.complete(tale("1847"))
		s.want(r, "shared")
		return &r.report
	}
	usual := try(nil)
	bare := try(&Trial{Plan: func(tokens []matcher.PlanToken) {
		for i := range tokens {
			if tokens[i].Ref >= 0 {
				tokens[i].Reason = matcher.Reused
			}
		}
	}})
	if bare.Recomputed >= usual.Recomputed || bare.Work >= usual.Work {
		t.Errorf("%d tokens (%.3f) were recomputed though taken out of the plan, and %d (%.3f) otherwise", bare.Recomputed, bare.Work, usual.Recomputed, usual.Work)
	}
	try(&Trial{Unrotated: true})
	try(&Trial{Slot: true})
}
