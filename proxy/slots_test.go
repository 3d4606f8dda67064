package proxy

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// TestSlotsAreGivenInTurn: who wants all slots waits for those before it, and those who
// come later wait for it.
func TestSlotsAreGivenInTurn(t *testing.T) {
	s := newSlots(2)
	ctx := context.Background()
	a, _ := s.acquire(ctx, "a", nil, 1, 0)
	order := make(chan string, 3)
	wait := func(name string, get func()) {
		n := s.waiting()
		go func() { get(); order <- name }()
		within(t, name+" waits", func() bool { return s.waiting() == n+1 })
	}
	wait("all", func() {
		s.acquireAll(ctx)
		s.releaseAll()
	})
	wait("single", func() { s.acquire(ctx, "b", nil, 1, 0) })
	late, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if s.acquireAll(late) {
		t.Error("all slots were given while one was taken")
	}
	s.release(a, "a", []int32{1}, 0)
	if first, second := <-order, <-order; first != "all" || second != "single" {
		t.Errorf("%s went before %s", first, second)
	}
}

func (s *slots) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}

// TestTheBookSaysNothingThatItDoesNotKnow: a slot that was given back without content, or
// that others may have written to, is nobody's.
func TestTheBookSaysNothingThatItDoesNotKnow(t *testing.T) {
	f := func(name string, held []int32, doubt bool, want string) {
		t.Helper()
		s := newSlots(1)
		sl, _ := s.acquire(context.Background(), "a", nil, 1, 0)
		if doubt {
			s.doubt()
		}
		s.release(sl, "a", held, thinned)
		if sl.tenant != want || sl.generation != thinned {
			t.Errorf("%s: the slot is %q's, of generation %d: want %q, and still without some cells", name, sl.tenant, sl.generation, want)
		}
	}
	f("a prompt", []int32{1}, false, "a")
	f("nothing", nil, false, "")
	f("a prompt, in doubt", []int32{1}, true, "")
}

// TestLooseRequestsMakeTheBookUncertain until they are over, and those that are never sent
// are none.
func TestLooseRequestsMakeTheBookUncertain(t *testing.T) {
	sh := &Sharer{}
	lv := &live{slots: newSlots(1), probed: &bridge.Probed{}}
	sh.live.Store(lv)
	request := func() *decision {
		return &decision{sh: sh, lv: lv, book: lv.slots, req: &request{Apart: true}, Slot: -1}
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	f := func(name string, d *decision, want bool) {
		t.Helper()
		if got := d.uncertain(); got != want {
			t.Errorf("%s: uncertain is %v, want %v", name, got, want)
		}
	}
	hungUp := request()
	hungUp.sentUnpinned(gone)
	f("a client that hung up", request(), false)
	unpinned := request()
	unpinned.sentUnpinned(context.Background())
	f("a unpinned request", request(), true)
	holder := request()
	holder.slot, _ = lv.slots.acquire(context.Background(), "a", nil, 1, 0)
	unpinned.overUnpinned(t.Context(), outcome{Status: http.StatusOK})
	f("after it", request(), false)
	f("after it, with a slot from before", holder, true)
	sh.live.Store(nil)
	f("a backend in doubt", request(), true)
}

// TestTheBookFollowsTheBackendsCount: what an answer's count contradicts is not noted.
func TestTheBookFollowsTheBackendsCount(t *testing.T) {
	f := func(o outcome, state State, want int) {
		t.Helper()
		lv := &live{slots: newSlots(1)}
		d := &decision{State: state, sh: &Sharer{cfg: configs.Default(), metrics: NewMetrics()}, lv: lv, book: lv.slots, req: &request{Tenant: "a"},
			tokens: make([]int32, 10), expect: 8, reach: 8}
		d.slot, _ = lv.slots.acquire(t.Context(), "a", d.tokens, 1, 0)
		o.Status = http.StatusOK
		if d.verify(o) {
			d.capture(o)
		} else {
			d.freeUntaken(o)
		}
		if n := len(lv.slots.all[0].tokens); n != want {
			t.Errorf("%s, %d tokens found and %d computed of 10: the book has %d in the slot, expected %d", state, o.CacheN, o.PromptN, n, want)
		}
	}
	for _, state := range []State{StateCold, StateExact, StateShared} {
		f(outcome{CacheN: 8, PromptN: 2}, state, 10)
		f(outcome{CacheN: 8, PromptN: 4}, state, 0)
		f(outcome{CacheN: -1, PromptN: -1}, state, 10)
	}
	f(outcome{CacheN: -1, PromptN: -1, Failed: true}, StateCold, 0)
	f(outcome{CacheN: -1, PromptN: -1, Failed: true}, StateExact, 0)
}

// TestAPromptIsItsTenantsPrefixAlone.
func TestAPromptIsItsTenantsPrefixAlone(t *testing.T) {
	f := func(tenant string, want int) {
		t.Helper()
		s := newSlots(1)
		sl, _ := s.acquire(t.Context(), "a", nil, 1, 0)
		s.release(sl, "a", []int32{1, 2, 3}, 0)
		longest := s.longestPrefix(tenant, []int32{1, 2, 4}, unknown)
		if _, n := s.acquire(t.Context(), tenant, []int32{1, 2, 4}, 1, unknown); n != want || longest != want {
			t.Errorf("%q finds %d tokens of a's, and %d where it acquires; want %d", tenant, longest, n, want)
		}
	}
	f("a", 2)
	f("b", 0)
	f("", 0)
}

// TestOnlyKVThatTheRequestCanBearIsItsPrefix.
func TestOnlyKVThatTheRequestCanBearIsItsPrefix(t *testing.T) {
	policy := func(reuse configs.Reuse, retention float64) *decision {
		g := &request{Uncomposed: reuse == configs.ReuseExact}
		g.Policy.Reuse, g.Policy.Retention = reuse, retention
		return &decision{req: g}
	}
	f := func(name string, d *decision, want ...int) {
		t.Helper()
		for i, generation := range []int{0, 1, unknown, thinned} {
			s := newSlots(1)
			sl, _ := s.acquire(t.Context(), "a", nil, 1, 0)
			s.release(sl, "a", []int32{1, 2, 3}, generation)
			longest := s.longestPrefix("a", []int32{1, 2, 4}, d.maxGeneration())
			if _, n := s.acquire(t.Context(), "a", []int32{1, 2, 4}, 1, d.maxGeneration()); n != want[i] || longest != n {
				t.Errorf("%s, a slot of generation %d: %d tokens are its prefix, and %d acquired; expected %d", name, generation, longest, n, want[i])
			}
		}
	}
	f("exact", policy(configs.ReuseExact, .5), 2, 0, 0, 0)
	f("fuzzy", policy(configs.ReuseFuzzy, 1), 2, 2, 2, 0)
	f("fuzzy with retention", policy(configs.ReuseFuzzy, .5), 2, 2, 2, 2)
}

// TestTheBookForgetsSlotsThatHoldAnotherNumberOfTokens, as far as the backend tells, but not
// those that were used since it was asked.
func TestTheBookForgetsSlotsThatHoldAnotherNumberOfTokens(t *testing.T) {
	f := func(name string, held []int, behind int, since, want bool) {
		t.Helper()
		s := newSlots(1)
		sl, _ := s.acquire(t.Context(), "a", nil, 1, 0)
		sl.behind = behind
		asked := time.Now()
		if !since {
			asked = asked.Add(time.Minute)
		}
		s.release(sl, "a", []int32{1, 2, 3}, 0)
		if s.recounted(held, asked); s.holdsAny("a") != want {
			t.Errorf("%s: the book has the prompt: %v, expected %v", name, !want, want)
		}
	}
	f("the prompt and its answer", []int{5}, 2, false, true)
	f("an answer that nobody counted", []int{9}, 0, false, true)
	f("fewer", []int{2}, 2, false, false)
	f("more", []int{6}, 2, false, false)
	f("at work", []int{-1}, 0, false, false)
	f("not told", nil, 0, false, false)
	f("used since", []int{0}, 0, true, true)
}

// TestAPromptThatWasBrokenOffGoesOnInItsSlot, unless another holds more of it, or it is
// another tenant's.
func TestAPromptThatWasBrokenOffGoesOnInItsSlot(t *testing.T) {
	f := func(name, tenant string, held []int32, want int) {
		t.Helper()
		s := newSlots(3)
		for range s.all {
			sl, _ := s.acquire(t.Context(), "a", nil, 1, 0)
			switch sl.id {
			case 1:
				s.releaseLeaving(sl, "a", nil, []int32{1, 2, 3}, 0)
			case 2:
				s.release(sl, "a", held, 0)
			default:
				s.release(sl, "a", []int32{9}, 0)
			}
		}
		sl, prefix := s.acquire(t.Context(), tenant, []int32{1, 2, 3, 4}, 1, 0)
		if sl.id != want || sl.id == 1 && prefix != 0 {
			t.Errorf("%s: slot %d, with a prefix of %d; expected slot %d, and none of what is not known", name, sl.id, prefix, want)
		}
	}
	f("nothing better", "a", nil, 1)
	f("another holds less", "a", []int32{1}, 1)
	f("another holds as much", "a", []int32{1, 2, 3}, 2)
	f("another tenant", "b", nil, 0)
}

// TestAStoppedAnswersKVIsTheModelsOwn where the slot held nothing else, the backend was told to
// find nothing, or says what it found.
func TestAStoppedAnswersKVIsTheModelsOwn(t *testing.T) {
	f := func(name, body string, whole bool, cacheN, want int) {
		t.Helper()
		lv := &live{slots: newSlots(1), probed: &bridge.Probed{Props: bridge.Props{Context: 100}}}
		d := &decision{State: StateCold, sh: &Sharer{}, lv: lv, book: lv.slots, req: &request{Tenant: "a"}, tokens: make([]int32, 10), whole: whole, Body: []byte(body)}
		d.slot, _ = lv.slots.acquire(t.Context(), "a", d.tokens, 1, 0)
		d.freeUntaken(outcome{Status: http.StatusOK, Err: errClientGone, ClientGone: true, Began: true, CacheN: cacheN, PromptN: 10 - cacheN})
		if sl := lv.slots.all[0]; len(sl.tokens) != 10 || sl.generation != want || sl.behind != 100 {
			t.Errorf("%s: the slot holds %d tokens of generation %d, and %d of an answer; expected 10, %d, 100", name, len(sl.tokens), sl.generation, sl.behind, want)
		}
	}
	f("an empty slot", `{}`, true, -1, 0)
	f("something else, nothing counted", `{}`, false, -1, unknown)
	f("something else, not to be found", `{"cache_prompt":false}`, false, -1, 0)
	f("something else, not found", `{}`, false, 0, 0)
	f("something else, and more found than is known", `{}`, false, 5, unknown)
}

// TestKVThatMayHaveBeenShiftedIsOfUnknownOrigin, such as that of an answer: where the backend
// says that it found more than the book knows, or says nothing and may have.
func TestKVThatMayHaveBeenShiftedIsOfUnknownOrigin(t *testing.T) {
	f := func(name, body string, held []int32, cacheN, want int) {
		t.Helper()
		s := newSlots(1)
		sl, _ := s.acquire(t.Context(), "a", nil, 1, 0)
		sl.adapters, sl.behind = "", 10
		s.release(sl, "a", held, 0)
		d := &decision{State: StateCold, Body: []byte(body), sh: &Sharer{cfg: configs.Default(), metrics: NewMetrics()}, lv: &live{probed: new(bridge.Probed)}, book: s, req: &request{Tenant: "a"}, tokens: numbered(20)}
		var prefix int
		d.slot, prefix = s.acquire(t.Context(), "a", d.tokens, 1, 0)
		d.reach, d.whole = d.slot.reach(d.tokens, prefix)
		d.pin(prefix, coldNoGain)
		d.capture(outcome{Status: http.StatusOK, CacheN: cacheN, PromptN: 20 - max(0, cacheN)})
		if len(sl.tokens) != 20 || sl.generation != want {
			t.Errorf("%s: the slot holds %d tokens of generation %d, expected 20 of %d", name, len(sl.tokens), sl.generation, want)
		}
	}
	before, other := numbered(5), []int32{1, 2, 3}
	const plain, shifting = `{}`, `{"n_cache_reuse":0,"n_cache_reuse":1}`
	f("a turn", plain, before, 5, 0)
	f("a turn, with the answer before it", plain, before, 15, 0)
	f("a turn, not counted", plain, before, -1, 0)
	f("something else", plain, other, 0, 0)
	f("something else, of which some is found", plain, other, 1, unknown)
	f("something else, not counted", plain, other, -1, unknown)
	f("something else, not counted and not to be found", `{"cache_prompt":false}`, other, -1, 0)
	f("a turn that may be shifted", shifting, before, 5, 0)
	f("a turn, with some of the answer shifted", shifting, before, 6, unknown)
	f("a turn that may be shifted, not counted", shifting, before, -1, unknown)
	f("a turn that may be shifted, not counted and not to be found", `{"n_cache_reuse":1,"cache_prompt":false}`, before, -1, 0)
}
