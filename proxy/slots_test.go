package proxy

import (
	"context"
	"testing"
	"time"
)

// TestSlotsAreGivenInTurn: who wants all slots waits for those before it, and those who
// come later wait for it.
func TestSlotsAreGivenInTurn(t *testing.T) {
	s := newSlots(2)
	ctx := context.Background()
	a, _ := s.acquire(ctx, "a", nil, 1)
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
	wait("single", func() { s.acquire(ctx, "b", nil, 1) })
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
		sl, _ := s.acquire(context.Background(), "a", nil, 1)
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
	lv := &live{slots: newSlots(1)}
	sh.live.Store(lv)
	request := func() *Decision { return &Decision{sh: sh, lv: lv, g: &Generation{Apart: true}, Slot: -1} }
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	f := func(name string, d *Decision, want bool) {
		t.Helper()
		if got := d.uncertain(); got != want {
			t.Errorf("%s: uncertain is %v, want %v", name, got, want)
		}
	}
	hungUp := request()
	hungUp.sentLoose(gone)
	f("a client that hung up", request(), false)
	loose := request()
	loose.sentLoose(context.Background())
	f("a loose request", request(), true)
	holder := request()
	holder.slot, _ = lv.slots.acquire(context.Background(), "a", nil, 1)
	loose.overLoose()
	f("after it", request(), false)
	f("after it, with a slot from before", holder, true)
	sh.live.Store(nil)
	f("a backend in doubt", request(), true)
}
