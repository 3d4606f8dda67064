package proxy

import (
	"context"
	"sync/atomic"
)

// unpinned counts the requests under way whose slot the backend chooses, which may be any:
// until they are over the book of slots cannot be believed, and then not for what it said
// before. Where tenants are kept apart there are such only while nothing is known of the
// backend's slots, or from a configuration before. One that names LoRA adapters matters
// whoever the tenants are (see adapters.go).
type unpinned struct {
	under, adapted atomic.Int64 // adapted: those of them that name adapters
	// apart: tenants were kept apart at some time, so that it matters.
	apart atomic.Bool
}

// sentUnpinned notes a request that was decided, if it will be sent and its slot is the
// backend's choice.
func (d *decision) sentUnpinned(ctx context.Context) {
	if d.req.Apart {
		d.sh.unpinned.apart.Store(true)
	}
	if d.isUnpinned = d.Slot < 0 && !d.all && d.unsafe == "" && ctx.Err() == nil; d.isUnpinned {
		d.sh.unpinned.under.Add(1)
		if d.req.Adapters != "" {
			d.sh.unpinned.adapted.Add(1)
		}
	}
}

// overUnpinned has the book forgotten after such a request.
func (d *decision) overUnpinned() {
	if !d.isUnpinned {
		return
	}
	if lv := d.sh.live.Load(); lv != nil && (d.sh.unpinned.apart.Load() || d.req.Adapters != "") {
		lv.slots.doubt()
	}
	if d.req.Adapters != "" {
		d.sh.unpinned.adapted.Add(-1)
	}
	d.sh.unpinned.under.Add(-1)
}

// uncertain: another tenant's prompt may be in the request's slot, or what other adapters
// computed, whatever the book says: an unpinned request is under way, or was since the slot was
// taken or the backend doubted.
func (d *decision) uncertain() bool {
	switch l := &d.sh.unpinned; {
	case l.adapted.Load() > 0, d.lv.rescaled(d.sh), d.slot != nil && d.lv.slots.isDoubted(d.slot):
		return true
	case d.req.Apart:
		return l.under.Load() > 0 || d.sh.live.Load() != d.lv
	}
	return false
}
