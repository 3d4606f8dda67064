package proxy

import (
	"context"
	"sync/atomic"
	"time"
)

// unpinned counts the requests under way whose slot the backend chooses. It may be any slot:
// until they have ended the book cannot be trusted, and what it said before is then forgotten.
// If tenants are kept apart there are such requests only while nothing is known of the
// backend's slots, or from an earlier configuration. One that names LoRA adapters matters
// whoever the tenants are (see adapters.go).
type unpinned struct {
	sent, over atomic.Int64
	adapted    atomic.Int64 // those under way that name adapters
	// apart: tenants were kept apart at some time, so that it matters.
	apart atomic.Bool
}

// under is how many are under way. Those over are counted first: what comes and goes meanwhile
// must not hide one.
func (l *unpinned) under() int64 {
	over := l.over.Load()
	return l.sent.Load() - over
}

// wait waits until none is under way, and reports whether that was before ctx ended.
func (l *unpinned) wait(ctx context.Context) bool {
	for l.under() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(idlePoll):
		}
	}
	return true
}

// sentUnpinned notes a request that was decided, if it will be sent and its slot is the
// backend's choice.
func (d *decision) sentUnpinned(ctx context.Context) {
	if d.req.Apart {
		d.sh.unpinned.apart.Store(true)
	}
	if d.isUnpinned = (d.Slot < 0 || d.req.ignoresSlots()) && !d.all && d.unsafe == "" && ctx.Err() == nil; d.isUnpinned {
		d.sh.unpinned.sent.Add(1)
		d.sh.unpinned.adapted.Add(d.adapters())
	}
}

// overUnpinned has the book forgotten after such a request, or corrected. One that the backend
// refused without a look at it is as if it had not been sent.
func (d *decision) overUnpinned(ctx context.Context, o outcome) {
	switch {
	case !d.isUnpinned:
	case o.refused():
		d.sh.unpinned.adapted.Add(-d.adapters())
		d.sh.unpinned.sent.Add(-1)
	default:
		d.sh.whenOver(ctx, o, d.goesOnFor(), func() { d.mixed(ctx) })
	}
}

// adapters is 1 if the request names LoRA adapters, else 0.
func (d *decision) adapters() int64 {
	if d.req.Adapters != "" {
		return 1
	}
	return 0
}

// mixed has the book forgotten, or corrected, since nobody knows which slot the request took.
func (d *decision) mixed(ctx context.Context) {
	for _, book := range d.sh.books() {
		switch {
		case d.sh.unpinned.apart.Load() || d.req.Adapters != "":
			book.doubt()
		case d.req.several():
			d.sh.recount(ctx, book)
		}
	}
	d.sh.unpinned.adapted.Add(-d.adapters())
	d.sh.unpinned.over.Add(1)
}

// recount compares the book with how many tokens the backend says that its slots hold. Several
// answers take a slot each, and all but one are empty afterwards.
func (sh *Sharer) recount(ctx context.Context, s *slots) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	asked := time.Now()
	held, _ := sh.backend.AllHeld(ctx)
	s.recounted(held, asked)
}

// uncertain reports whether the request's slot may hold another tenant's prompt, or KV of
// other adapters, whatever the book says: an unpinned request is under way, or ended since the
// slot was taken, or the backend is doubted.
func (d *decision) uncertain() bool {
	switch l := &d.sh.unpinned; {
	case l.adapted.Load() > 0, d.slot != nil && d.book.isDoubted(d.slot):
		return true
	case d.unshared != nil:
		return l.under() > 0 || d.unshared.users.isClosed()
	case d.lv.rescaled(d.sh):
		return true
	case d.req.Apart:
		return l.under() > 0 || d.sh.live.Load() != d.lv
	}
	return false
}

// overrun: an unpinned request was under way at some time since the slot was acquired, and
// the backend may have given it that slot.
func (d *decision) overrun() bool { return d.sh.unpinned.sent.Load() > d.overBefore }
