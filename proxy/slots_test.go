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
		s.release(sl, "a", held, 0)
		if sl.tenant != want {
			t.Errorf("%s: the slot is %q's, want %q", name, sl.tenant, want)
		}
	}
	f("a prompt", []int32{1}, false, "a")
	f("nothing", nil, false, "")
	f("a prompt, in doubt", []int32{1}, true, "")
}
