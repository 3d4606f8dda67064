package proxy

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/semsharekv/semsharekv/matcher"
)

// slots is the sidecar's book of the backend's slots: which are in use, by whom,
// and what they hold. Requests that come around the sidecar make it wrong, and so do
// those whose slot the backend chooses (see loose); that costs time and is noticed by
// cache_n.
type slots struct {
	mu    sync.Mutex
	all   []*slot
	queue []*waiter     // who waits for slots, first come first
	freed chan struct{} // closed and replaced whenever somebody may go on
}

// waiter is a request that waits for a slot, or for all of them.
type waiter struct{ all bool }

// slot is one slot of the backend. Its fields but id are guarded by slots.mu, or
// owned by whoever acquired it.
type slot struct {
	id     int
	busy   bool
	used   time.Time
	tenant string  // whose prompt it holds, "" nobody's
	tokens []int32 // what it holds, as far as is known
	// generation of the KV it holds: 0 computed, more where composed.
	generation int
	// adapters of the request that filled it, as it named them: "" those that the backend
	// applies by itself.
	adapters string
	// doubted: whoever has it, something else may have been put in meanwhile.
	doubted bool
}

// thinned is the generation of KV that lacks cells (retention): above any that is kept
// as a reference.
const thinned = math.MaxInt

func newSlots(n int) *slots {
	s := &slots{freed: make(chan struct{})}
	for i := range n {
		s.all = append(s.all, &slot{id: i, adapters: unknownAdapters})
	}
	return s
}

// longestPrefix is the longest prefix of tokens that an idle slot of the tenant
// holds.
func (s *slots) longestPrefix(tenant string, tokens []int32) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, n := s.best(tenant, tokens)
	return n
}

// hold reports whether any slot is known to hold a prompt of the tenant.
func (s *slots) hold(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(sl *slot) bool { return sl.tenant == tenant && len(sl.tokens) > 0 })
}

// acquire takes the idle slot with the longest exact prefix of tokens, if it is
// at least least tokens long, else the one used least recently; it waits while
// all are busy. It returns nil when ctx ends first.
func (s *slots) acquire(ctx context.Context, tenant string, tokens []int32, least int) (sl *slot, prefix int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.await(ctx, &waiter{}, func() bool { return s.oldest() != nil }) {
		return nil, 0
	}
	sl, prefix = s.best(tenant, tokens)
	if sl == nil || prefix < least {
		sl, prefix = s.oldest(), 0
	}
	sl.busy = true
	if sl.tenant == tenant {
		prefix = max(prefix, matcher.CommonPrefix(sl.tokens, tokens))
	}
	return sl, prefix
}

// acquireAll waits until all slots are idle and takes them; false means that ctx ended
// first. Who comes later waits too.
func (s *slots) acquireAll(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	idle := func() bool { return !slices.ContainsFunc(s.all, func(sl *slot) bool { return sl.busy }) }
	if !s.await(ctx, &waiter{all: true}, idle) {
		return false
	}
	for _, sl := range s.all {
		sl.busy = true
	}
	return true
}

// await lines w up and returns once it is its turn and ready; false means that ctx ended
// first. The caller holds s.mu, which is given up meanwhile.
func (s *slots) await(ctx context.Context, w *waiter, ready func() bool) bool {
	s.queue = append(s.queue, w)
	defer func() {
		s.queue = slices.DeleteFunc(s.queue, func(o *waiter) bool { return o == w })
		s.wake()
	}()
	for !s.turn(w) || !ready() {
		freed := s.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			return false
		}
	}
	return true
}

// turn reports whether nobody who came before w is to go first: those who want one slot
// let each other pass, those who want all wait for everybody, and everybody for them.
func (s *slots) turn(w *waiter) bool {
	for _, o := range s.queue {
		if o == w {
			return true
		}
		if o.all || w.all {
			return false
		}
	}
	return true
}

// releaseAll gives all slots back; nobody knows what they hold.
func (s *slots) releaseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		sl.busy, sl.doubted, sl.used = false, false, time.Now()
		sl.nobodys()
		sl.adapters = unknownAdapters
	}
	s.wake()
}

// doubt forgets what the slots hold, those too that somebody has.
func (s *slots) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		sl.doubted = sl.busy
		if !sl.busy {
			sl.nobodys()
			sl.adapters = unknownAdapters
		}
	}
}

// isDoubted: something else may have been put into the slot since it was acquired.
func (s *slots) isDoubted(sl *slot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sl.doubted
}

// nobodys notes that it is not known what the slot holds. What is left in it may lack
// cells as before.
func (sl *slot) nobodys() { sl.tenant, sl.tokens = "", nil }

// wake has everybody who waits look again.
func (s *slots) wake() {
	close(s.freed)
	s.freed = make(chan struct{})
}

func (s *slots) best(tenant string, tokens []int32) (best *slot, prefix int) {
	for _, sl := range s.all {
		if sl.busy || sl.tenant != tenant {
			continue
		}
		if n := matcher.CommonPrefix(sl.tokens, tokens); n > prefix {
			best, prefix = sl, n
		}
	}
	return best, prefix
}

// oldest is the idle slot used least recently.
func (s *slots) oldest() (old *slot) {
	for _, sl := range s.all {
		if !sl.busy && (old == nil || sl.used.Before(old.used)) {
			old = sl
		}
	}
	return old
}

// takeOldest takes the idle slot used least recently of those that fit, without waiting; nil
// where there is none.
func (s *slots) takeOldest(fits func(*slot) bool) (old *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		if !sl.busy && fits(sl) && (old == nil || sl.used.Before(old.used)) {
			old = sl
		}
	}
	if old != nil {
		old.busy = true
	}
	return old
}

// emptied gives back a slot that was taken to be emptied. It stays the next to be used.
func (s *slots) emptied(sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy, sl.doubted, sl.generation = false, false, 0
	sl.nobodys()
	s.wake()
}

// release gives the slot back, holding what it is said to hold. Where that is nothing, it
// is nobody's: the backend may have left in it what was there before.
func (s *slots) release(sl *slot, tenant string, tokens []int32, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy, sl.used = false, time.Now()
	sl.tenant, sl.tokens, sl.generation = tenant, tokens, generation
	if sl.doubted {
		sl.adapters = unknownAdapters
	}
	if sl.doubted || len(tokens) == 0 {
		sl.doubted = false
		sl.nobodys()
	}
	s.wake()
}

// exhausted tells whether no slot is idle.
func (s *slots) exhausted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.oldest() == nil
}

// forget notes that all idle slots are empty.
func (s *slots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		if !sl.busy {
			sl.tenant, sl.tokens, sl.generation = "", nil, 0
		}
	}
}
