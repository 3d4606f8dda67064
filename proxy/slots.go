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
// those whose slot the backend chooses, of which there are none where tenants are kept
// apart; that costs time and is noticed by cache_n.
type slots struct {
	mu     sync.Mutex
	all    []*slot
	freed  chan struct{} // closed and replaced whenever a slot is released
	wanted int           // who waits for all slots; nobody gets one meanwhile
}

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
}

// thinned is the generation of KV that lacks cells (retention): above any that is kept
// as a reference.
const thinned = math.MaxInt

func newSlots(n int) *slots {
	s := &slots{freed: make(chan struct{})}
	for i := range n {
		s.all = append(s.all, &slot{id: i})
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
	for {
		s.mu.Lock()
		if best, n := s.best(tenant, tokens); best != nil && n >= least {
			sl, prefix = best, n
		} else {
			sl, prefix = s.oldest(), 0
		}
		if sl != nil && s.wanted == 0 {
			sl.busy = true
			if sl.tenant == tenant {
				prefix = max(prefix, matcher.CommonPrefix(sl.tokens, tokens))
			}
			s.mu.Unlock()
			return sl, prefix
		}
		freed := s.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, 0
		}
	}
}

// acquireAll waits until all slots are idle and takes them; false means that ctx ended
// first.
func (s *slots) acquireAll(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted++
	defer func() { s.wanted-- }()
	for slices.ContainsFunc(s.all, func(sl *slot) bool { return sl.busy }) {
		freed := s.freed
		s.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
		}
		s.mu.Lock()
		if ctx.Err() != nil {
			s.wake()
			return false
		}
	}
	for _, sl := range s.all {
		sl.busy = true
	}
	return true
}

// releaseAll gives all slots back; nobody knows what they hold.
func (s *slots) releaseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sl := range s.all {
		sl.busy, sl.used = false, time.Now()
		sl.tenant, sl.tokens, sl.generation = "", nil, 0
	}
	s.wake()
}

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

// release gives the slot back, holding what it is said to hold.
func (s *slots) release(sl *slot, tenant string, tokens []int32, generation int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl.busy, sl.used = false, time.Now()
	sl.tenant, sl.tokens, sl.generation = tenant, tokens, generation
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
