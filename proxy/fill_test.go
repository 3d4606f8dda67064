package proxy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// TestRunsTellHowFarKeysMove: what stood at 5 and comes to stand at 9 moves by 4.
func TestRunsTellHowFarKeysMove(t *testing.T) {
	tokens := make([]matcher.PlanToken, 14)
	for i := range tokens {
		tokens[i].Ref = -1
	}
	for i := range int32(3) {
		tokens[9+i] = matcher.PlanToken{Pos: 5 + i}
	}
	tokens[12] = matcher.PlanToken{Ref: 1, Pos: 8}
	tokens[13] = matcher.PlanToken{Pos: 20, Reason: matcher.Hole}
	want := []bridge.Run{{Src: 5, Dst: 9, Len: 3, Delta: 4}, {Ref: 1, Src: 8, Dst: 12, Len: 1, Delta: 4}}
	if got := runs(tokens, 0, 14); !slices.Equal(got, want) {
		t.Errorf("%+v; want %+v", got, want)
	}
	want = []bridge.Run{{Src: 20, Dst: 3, Len: 1, Delta: -17}}
	if got := runs([]matcher.PlanToken{3: {Pos: 20}}, 3, 4); !slices.Equal(got, want) {
		t.Errorf("%+v; want %+v", got, want)
	}
}

// TestNobodyOpensAnothersReference, whatever a plan says, nor one of another model; and what is
// composed of it is a generation further from the model's own.
func TestNobodyOpensAnothersReference(t *testing.T) {
	f := func(name, tenant string, generation, moved int, change func(*decision, *planned), refused bool, want int) {
		t.Helper()
		s := startStandIn(t, 1)
		d := s.decision("us", numbered(8))
		p := prefixPlan(s.keep(tenant, generation, numbered(8)), d.tokens, 6, moved)
		change(d, p)
		refs, err := d.open(p)
		release(refs)
		if (err != nil) != refused || err == nil && d.generation != want {
			t.Errorf("%s: error %v, generation %d; want refused: %v, else generation %d", name, err, d.generation, refused, want)
		}
	}
	as := func(*decision, *planned) {}
	recipe := func(_ *decision, p *planned) { p.recipe = true }
	f("another tenant's", "them", 0, 0, as, true, 0)
	f("another model's", "us", 0, 0, func(d *decision, _ *planned) { d.lv.refKey = "other" }, true, 0)
	f("an exact prefix", "us", 0, 0, as, false, 0)
	f("an exact prefix of what was composed", "us", 3, 0, as, false, 3)
	f("moved", "us", 0, -1, as, false, slotSteps)
	f("moved, of what was composed", "us", 1, -1, as, false, 1+slotSteps)
	f("moved, by the agent", "us", 1, -1, recipe, false, 2)
	f("not drawn on", "us", 5, -1, func(_ *decision, p *planned) {
		for i := range p.Tokens {
			p.Tokens[i].Reason = matcher.Unmatched
		}
	}, false, 0)
}

// TestASlotThatWasNotFilledAsPlannedIsEmptied, and the request goes as the client sent it.
func TestASlotThatWasNotFilledAsPlannedIsEmptied(t *testing.T) {
	f := func(name string, change func(*standIn, *decision, *planned), state State, reason, asked string) {
		t.Helper()
		s := startStandIn(t, 1)
		s.restores, s.cells = 6, 6
		d := s.decision("us", numbered(8))
		p := prefixPlan(s.keep("us", 0, numbered(8)), d.tokens, 6, 0)
		change(s, d, p)
		d.inject(t.Context(), p, "")
		if d.State != state || d.Reason != reason || strings.Join(s.asked, ", ") != asked {
			t.Errorf("%s: %s, reason %q, asked %q; want %s, %q, %q", name, d.State, d.Reason, s.asked, state, reason, asked)
		}
		pinned := gjson.GetBytes(d.Body, "id_slot").Exists()
		erased := strings.HasSuffix(asked, "erase 0")
		if pinned != (d.Slot == 0) || pinned == (erased && !d.req.Apart) {
			t.Errorf("%s: the body is %s, the slot %d", name, d.Body, d.Slot)
		}
		if told := gjson.GetBytes(d.Body, "cache_prompt").Raw == "false"; erased && told != d.req.Apart {
			t.Errorf("%s: told to find nothing: %v; want %v", name, told, d.req.Apart)
		}
		if untrue := s.restores == 5; d.report.RestoreFailed != untrue || (testutil.ToFloat64(s.sh.metrics.Mismatches) > 0) != untrue {
			t.Errorf("%s: a restore is reported to have failed: %v; want %v, and that it is counted", name, d.report.RestoreFailed, untrue)
		}
		if erased && s.lv.slots.holdsAny("us") {
			t.Errorf("%s: the book has something in the slot", name)
		}
	}
	agent := func(next func(*standIn, *decision, *planned)) func(*standIn, *decision, *planned) {
		return func(s *standIn, d *decision, p *planned) {
			p.recipe = true
			next(s, d, p)
		}
	}
	as := func(*standIn, *decision, *planned) {}
	fails := func(what string) func(*standIn, *decision, *planned) {
		return func(s *standIn, _ *decision, _ *planned) { s.fails = what }
	}
	fewer := func(s *standIn, _ *decision, _ *planned) { s.restores = 5 }
	adapters := func(s *standIn, _ *decision, _ *planned) { s.lv.probed.Props.Adapters = 1 }
	f("as planned", as, StateShared, "", "restore 0")
	f("fewer restored", fewer, StateCold, coldFill, "restore 0, erase 0")
	f("not restored", fails("restore"), StateCold, coldFill, "restore 0, erase 0")
	f("not restored, where tenants are apart", func(s *standIn, d *decision, _ *planned) { s.fails, d.req.Apart = "restore", true }, StateCold, coldFill, "restore 0, erase 0")
	f("others' adapters", adapters, StateShared, "", "compute 0, restore 0")
	f("others' adapters, that stay", func(s *standIn, _ *decision, _ *planned) { s.lv.probed.Props.Adapters, s.fails = 1, "compute" }, StateCold, coldFill, "compute 0, erase 0")
	f("another's reference", func(s *standIn, d *decision, _ *planned) { d.req.Tenant = "them" }, StateCold, coldReference, "")
	f("another backend", func(s *standIn, _ *decision, _ *planned) { s.sh.live.Store(nil) }, StateCold, coldUnavailable, "restore 0, erase 0")
	f("a doubted slot", func(s *standIn, _ *decision, _ *planned) { s.beside = s.lv.slots.doubt }, StateCold, coldUnavailable, "restore 0, erase 0")
	f("by the agent", agent(as), StateShared, "", "restore 0")
	f("by the agent, fewer", agent(fewer), StateCold, coldFill, "restore 0, erase 0")
	f("by the agent, of other tokens", agent(func(_ *standIn, d *decision, _ *planned) { d.exact = told(numbered(9)) }), StateCold, coldFill, "restore 0, erase 0")
	f("by the agent, of the same tokens", agent(func(_ *standIn, d *decision, _ *planned) { d.exact = told(numbered(8)) }), StateShared, "", "restore 0")
	f("by the agent, others' adapters", agent(adapters), StateShared, "", "compute 0, restore 0")
}

func told(tokens []int32) *exactTokens {
	e := &exactTokens{done: make(chan struct{}), tokens: tokens}
	close(e.done)
	return e
}

// TestASlotThatCannotBeEmptiedEndsSharing until the backend was looked at.
func TestASlotThatCannotBeEmptiedEndsSharing(t *testing.T) {
	s := startStandIn(t, 1)
	s.fails = "erase"
	if d := s.holding("us", numbered(8)); d.erase(d.slot) == nil || s.sh.live.Load() != nil {
		t.Errorf("erased, or still shared with; asked %q", s.asked)
	}
}

// TestAColdRequestFindsNothingThatIsNotForIt in the slot that it is pinned to.
func TestAColdRequestFindsNothingThatIsNotForIt(t *testing.T) {
	f := func(name string, prefix int, change func(*decision), state State, told bool) {
		t.Helper()
		s := startStandIn(t, 1)
		d := s.holding("us", numbered(10))
		d.slot.adapters = ""
		change(d)
		d.pin(prefix, coldNothing)
		cache := gjson.GetBytes(d.Body, "cache_prompt")
		if d.State != state || (cache.Raw == "false") != told || cache.Exists() != told || gjson.GetBytes(d.Body, "id_slot").Raw != "0" {
			t.Errorf("%s: %s, the body is %s; want %s, told to find nothing: %v", name, d.State, d.Body, state, told)
		}
	}
	as := func(*decision) {}
	apart := func(d *decision) { d.req.Apart = true }
	wary := func(d *decision) {
		d.req.Uncomposed = true
		d.sh.composed.Store(true)
	}
	f("one for all", 0, as, StateCold, false)
	f("tenants apart", 0, apart, StateCold, true)
	f("the model's own answer, with composed slots", 0, wary, StateCold, true)
	f("the model's own answer, with none", 0, func(d *decision) { d.req.Uncomposed = true }, StateCold, false)
	f("a composed slot", 0, func(d *decision) { d.slot.generation = 1 }, StateCold, true)
	f("other adapters", 0, func(d *decision) { d.lv.probed.Props.Adapters, d.slot.adapters = 1, unknownAdapters }, StateCold, true)
	f("a prefix", 5, as, StateExact, false)
	f("a prefix, tenants apart", 5, apart, StateExact, false)
	f("a short prefix, tenants apart", 1, apart, StateCold, true)
	f("a prefix that somebody may have overwritten", 5, func(d *decision) {
		apart(d)
		d.sh.unpinned.sent.Add(1)
	}, StateCold, true)
	f("a doubted slot", 5, func(d *decision) { d.lv.slots.doubt() }, StateCold, false)
}

// TestTheIndexIsNotBelieved: what it names is looked at, and another tenant's left alone.
func TestTheIndexIsNotBelieved(t *testing.T) {
	f := func(whose string, want int) {
		t.Helper()
		s := startStandIn(t, 1)
		d := s.decision("us", numbered(200))
		id := s.keep(whose, 0, d.tokens)
		if err := s.sh.index.Add(t.Context(), s.sh.scope("us", s.lv.refKey), id, s.lv.signer.Fingerprint(d.tokens), time.Now()); err != nil {
			t.Fatal(err)
		}
		refs, reason := d.lookUp(t.Context())
		if known := d.known(); len(refs) != want || known != (want > 0) {
			t.Errorf("%s's: %d references (%s), known: %v; want %d", whose, len(refs), reason, known, want)
		}
	}
	f("us", 1)
	f("them", 0)
}
