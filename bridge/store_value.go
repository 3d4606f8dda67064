package bridge

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// halfLife is after how long a hit counts half.
const halfLife = time.Hour

// earnings are a reference's hits and the tokens they saved, fading with time so
// that what was once popular gives way.
type earnings struct {
	Hits   float64   `json:"hits"`
	Tokens float64   `json:"tokens"`
	At     time.Time `json:"at"`
}

// at is what the earnings are worth at a later time.
func (e earnings) at(now time.Time) earnings {
	if age := now.Sub(e.At); age > 0 && !e.At.IsZero() {
		fade := math.Exp2(-age.Seconds() / halfLife.Seconds())
		e.Hits *= fade
		e.Tokens *= fade
	}
	e.At = now
	return e
}

// plus is what both are worth together at a later time.
func (e earnings) plus(o earnings, now time.Time) earnings {
	e, o = e.at(now), o.at(now)
	e.Hits += o.Hits
	e.Tokens += o.Tokens
	return e
}

// seen is how often the prompt behind a reference was asked, itself included.
func (e earnings) seen() int { return 1 + int(math.Round(e.Hits)) }

// gains are a reference's hits and savings in this store since its metadata were last
// written: no other sidecar knows of them.
type gains struct {
	hits, tokens int64
	earned       earnings
}

// plus is both together.
func (g gains) plus(o gains, now time.Time) gains {
	return gains{g.hits + o.hits, g.tokens + o.tokens, g.earned.plus(o.earned, now)}
}

// merge sets e's counts to the sum of those in rec, which include other sidecars', and of this
// one's gains. The reference's other metadata stay as they were when it was found. The caller
// holds Store.mu.
func (e *entry) merge(rec record, now time.Time) {
	e.meta.Hits, e.meta.SavedTokens = rec.Hits+e.own.hits, rec.SavedTokens+e.own.tokens
	e.earned = rec.Earned.plus(e.own.earned, now)
	if rec.Used.After(e.meta.Used) {
		e.meta.Used = rec.Used
	}
	e.noted = rec.stamp
}

// makeRoom evicts until bytes more fit into the budget: references that lately saved fewest
// tokens for each byte first, of those that saved none other models' first, then the longest
// unused. What other models' saved does not count where it was not within halfLife. A
// reference only goes for a prompt that was seen at least as often as its own, frequency
// times. Either all that is needed goes or nothing. The caller holds s.mu, and ends with
// unlock.
func (s *Store) makeRoom(bytes int64, frequency int) error {
	if s.closed {
		return errClosed
	}
	if s.o.Budget <= 0 {
		return nil
	}
	if bytes > s.o.Budget {
		return fmt.Errorf("%w: %d bytes are more than the budget of %d", ErrNotAdmitted, bytes, s.o.Budget)
	}
	need := s.used() + bytes - s.o.Budget
	if need <= 0 {
		return nil
	}
	var out []*entry
	for _, v := range s.victims() {
		if need <= 0 {
			break
		}
		if v.earned.seen() > max(frequency, 1) {
			continue // a smaller one of less use per byte may still do
		}
		out = append(out, v.entry)
		need -= v.entry.meta.Bytes
	}
	if need > 0 {
		return fmt.Errorf("%w: the store is full of references that earn their place: %d bytes short for a prompt seen %d times", ErrNotAdmitted, need, frequency)
	}
	for _, e := range out {
		s.detach(e, DropEvicted)
	}
	return nil
}

type victim struct {
	entry    *entry
	earned   earnings
	perByte  float64
	familiar int // 0 where it is another model's
}

// victims lists what may be evicted, the least valued first.
func (s *Store) victims() []victim {
	now := s.o.Now()
	all := make([]victim, 0, len(s.entries))
	for _, e := range s.entries {
		if e.pins > 0 || s.leaves(e.meta.ID) {
			continue
		}
		v := victim{entry: e, earned: e.earned.at(now)}
		switch {
		case !s.foreign(e):
			v.familiar = 1
		case now.Sub(e.meta.Used) > halfLife:
			v.earned = earnings{} // nobody serves that model any more
		}
		if v.earned.seen() > 1 {
			v.perByte = v.earned.Tokens / float64(e.meta.Bytes)
		}
		all = append(all, v)
	}
	slices.SortFunc(all, func(a, b victim) int {
		return cmp.Or(
			cmp.Compare(a.perByte, b.perByte),
			cmp.Compare(a.familiar, b.familiar),
			a.entry.meta.Used.Compare(b.entry.meta.Used),
			cmp.Compare(a.entry.meta.ID, b.entry.meta.ID))
	})
	return all
}

// used is what references and reservations take.
func (s *Store) used() int64 {
	var n int64
	for _, e := range s.entries {
		n += e.meta.Bytes
	}
	for _, r := range s.reserved {
		n += r
	}
	return n
}
