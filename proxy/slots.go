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
// those whose slot the backend chooses (see unpinned); that costs time and is noticed by
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
	tenant string  // whose prompt it holds, or some part of (left); "" nobody's
	tokens []int32 // what it holds, as far as is known
	behind int     // tokens of an answer that it holds behind them
	// left is set after a request was cut off: the slot holds some prefix of these tokens,
	// perhaps followed by part of an answer, all computed by the model. Empty, but not nil:
	// the slot of a new book, which the probe empties. nil: see tokens, and if there are none
	// the contents are unknown.
	left []int32
	// generation of the KV it holds: 0 computed, more where composed.
	generation int
	// adapters of the request that filled it, as it named them: "" those that the backend
	// applies by itself.
	adapters string
	// doubted: whoever has it, something else may have been put in meanwhile.
	doubted bool
}

// Generations above any that is kept as a reference.
const (
	// thinned is that of KV that lacks cells (retention).
	thinned = math.MaxInt
	// unknown is that of KV of which nobody knows how it was made.
	unknown = thinned - 1
)

func newSlots(n int) *slots {
	s := &slots{freed: make(chan struct{})}
	for i := range n {
		s.all = append(s.all, &slot{id: i, adapters: unknownAdapters, left: []int32{}})
	}
	return s
}

// longestPrefix is the longest prefix of tokens that an idle slot of the tenant
// holds, of a generation up to most.
func (s *slots) longestPrefix(tenant string, tokens []int32, most int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, n := s.best(tenant, tokens, most)
	return n
}

// holdsAny reports whether any slot is known to hold a prompt of the tenant.
func (s *slots) holdsAny(tenant string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(sl *slot) bool { return sl.tenant == tenant && len(sl.tokens) > 0 })
}

// acquire waits for an idle slot and takes, in this order: one that may hold at least `least`
// tokens of the prompt from a request that was cut off, if that beats any known prefix; the
// one with the longest known prefix (generation <= most), if at least `least`; the least
// recently used. prefix is the length of the slot's known prefix, 0 in the first case. nil:
// ctx ended.
func (s *slots) acquire(ctx context.Context, tenant string, tokens []int32, least, most int) (sl *slot, prefix int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.await(ctx, &waiter{}, func() bool { return s.oldest(anySlot) != nil }) {
		return nil, 0
	}
	sl, prefix = s.best(tenant, tokens, most)
	if begun, n := s.begun(tenant, tokens); n >= max(least, prefix+1) {
		sl, prefix = begun, 0 // how much of it is there the backend finds out
	} else if sl == nil || prefix < least {
		sl = s.oldest(anySlot)
		prefix = sl.prefix(tenant, tokens, most)
	}
	sl.busy = true
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

// turn reports whether w may be served before those ahead of it in the queue. Requests for one
// slot may overtake each other; a request for all slots waits for everybody ahead, and
// everybody behind waits for it.
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

// recounted corrects the book by how many tokens the backend said, when asked, that each slot
// held. What an idle slot holds is forgotten if the number does not fit the book or is
// missing. Slots used since then are left alone.
func (s *slots) recounted(held []int, asked time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		if !sl.busy && sl.used.Before(asked) && (sl.id >= len(held) || !sl.mayHold(held[sl.id])) {
			sl.nobodys()
		}
	}
}

// mayHold reports whether the slot can hold n tokens, by the book.
func (sl *slot) mayHold(n int) bool {
	return n >= len(sl.tokens) && (sl.behind == 0 || n <= len(sl.tokens)+sl.behind)
}

// isDoubted: something else may have been put into the slot since it was acquired.
func (s *slots) isDoubted(sl *slot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sl.doubted
}

// nobodys notes that it is not known what the slot holds. The generation stays: what is still
// in it may lack cells.
func (sl *slot) nobodys() { sl.tenant, sl.tokens, sl.behind, sl.left = "", nil, 0, nil }

// strangers notes that a request which the book does not know uses the slot. The slot is then
// the last to be chosen.
func (sl *slot) strangers() {
	sl.nobodys()
	sl.generation, sl.used = unknown, time.Now()
}

// leaveToStranger gives back a slot that a request which the book does not know is at work in.
func (s *slots) leaveToStranger(sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy, sl.doubted, sl.adapters = false, false, unknownAdapters
	sl.strangers()
	s.wake()
}

// wake has everybody who waits look again.
func (s *slots) wake() {
	close(s.freed)
	s.freed = make(chan struct{})
}

func (s *slots) best(tenant string, tokens []int32, most int) (best *slot, prefix int) {
	for _, sl := range s.all {
		if sl.busy {
			continue
		}
		if n := sl.prefix(tenant, tokens, most); n > prefix {
			best, prefix = sl, n
		}
	}
	return best, prefix
}

// begun is the idle slot that may have most of the tokens left from a prompt of the tenant's
// that was broken off.
func (s *slots) begun(tenant string, tokens []int32) (begun *slot, most int) {
	for _, sl := range s.all {
		if sl.busy || sl.tenant != tenant {
			continue
		}
		if n := matcher.CommonPrefix(sl.left, tokens); n > most {
			begun, most = sl, n
		}
	}
	return begun, most
}

// prefix is how many of the tokens the slot holds for the tenant, of a generation up to most.
func (sl *slot) prefix(tenant string, tokens []int32, most int) int {
	if sl.tenant != tenant || sl.generation > most {
		return 0
	}
	return matcher.CommonPrefix(sl.tokens, tokens)
}

// reach returns how many tokens of the prompt the slot may hold, if it is known to hold the
// first prefix of them: the prompt may also repeat the answer behind them. whole reports
// whether the prompt begins with all tokens that are known of the slot.
func (sl *slot) reach(prompt []int32, prefix int) (n int, whole bool) {
	if sl.left != nil {
		n = matcher.CommonPrefix(sl.left, prompt)
		if whole = n == len(sl.left); whole && n > 0 {
			n = len(prompt) // nobody counted the answer
		}
		return n, whole
	}
	whole = prefix > 0 && prefix == len(sl.tokens)
	if prefix == len(sl.tokens) {
		prefix += sl.behind
	}
	return prefix, whole
}

// takeComposed acquires the idle slots whose KV was not, for all that is known, computed as
// the model does.
func (s *slots) takeComposed() (out []*slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		if !sl.busy && sl.generation > 0 {
			sl.busy = true
			out = append(out, sl)
		}
	}
	return out
}

// composed reports whether any slot may hold KV that was not computed as the model does.
func (s *slots) composed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.all, func(sl *slot) bool { return sl.generation > 0 })
}

func anySlot(*slot) bool { return true }

// oldest is the idle slot used least recently of those that fit.
func (s *slots) oldest(fits func(*slot) bool) (old *slot) {
	for _, sl := range s.all {
		if !sl.busy && fits(sl) && (old == nil || sl.used.Before(old.used)) {
			old = sl
		}
	}
	return old
}

// takeOldest takes the oldest slot that fits, without waiting; nil where there is none.
func (s *slots) takeOldest(fits func(*slot) bool) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.oldest(fits)
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

// giveBack gives back a slot that is as it was when it was acquired.
func (s *slots) giveBack(sl *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy = false
	if sl.doubted {
		sl.doubted, sl.adapters = false, unknownAdapters
		sl.nobodys()
	}
	s.wake()
}

// release gives the slot back, holding what it is said to hold. Where that is nothing, it
// is nobody's: the backend may have left in it what was there before.
func (s *slots) release(sl *slot, tenant string, tokens []int32, generation int) {
	s.releaseLeaving(sl, tenant, tokens, nil, generation)
}

// releaseLeaving is release, and where no tokens are known notes what is left in the slot.
func (s *slots) releaseLeaving(sl *slot, tenant string, tokens, left []int32, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy, sl.used, sl.generation = false, time.Now(), generation
	switch {
	case sl.doubted:
		sl.doubted, sl.adapters = false, unknownAdapters
		sl.nobodys()
	case len(tokens) > 0:
		sl.tenant, sl.tokens, sl.left = tenant, tokens, nil
	default:
		sl.nobodys()
		if generation == 0 && left != nil {
			sl.tenant, sl.left = tenant, left
		}
	}
	s.wake()
}

// exhausted tells whether no slot is idle.
func (s *slots) exhausted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.oldest(anySlot) == nil
}

// allEmptied notes that all idle slots are empty.
func (s *slots) allEmptied() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		if !sl.busy {
			sl.nobodys()
			sl.generation = 0
		}
	}
}
