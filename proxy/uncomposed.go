package proxy

import (
	"context"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

// The model's own answer: routes with reuse off or exact, and clients with X-SemShareKV: off,
// want none of the KV that was composed. Composed KV lies in slots, where the backend's prefix
// match could find it, and may have been copied from there to the backend's RAM cache or other
// slots. So from the first fill on, and before the first probe too (an earlier sidecar may
// have filled slots), such requests are sent so that they match only what our book records as
// the model's own.

// clearTimeout bounds how long a request waits for composed slots to be emptied.
const clearTimeout = time.Second

// maxGeneration is the highest generation of KV that the request may be answered from.
func (d *decision) maxGeneration() int {
	switch {
	case d.req.Uncomposed:
		return 0
	case d.req.Policy.Retention < 1:
		return thinned
	}
	return unknown
}

// wary: the backend might find composed KV for a request that wants the model's own.
func (d *decision) wary() bool {
	return d.req.Uncomposed && (d.sh.composed.Load() || d.sh.inherited.Load())
}

// inherit is wary of what an earlier sidecar may have left in the backend's slots.
func (sh *Sharer) inherit() {
	if bridge.Used(sh.cfg.Backend.SlotDir) {
		sh.inherited.Store(true)
		sh.uncleared.Store(&bridge.Props{})
	}
}

// disinherit follows a probe, which emptied the slots but those that the new book does not know.
func (sh *Sharer) disinherit(book *slots) {
	if !book.composed() {
		sh.inherited.Store(false)
	}
}

// mute reports whether the body cannot tell the backend to find nothing.
func (r *request) mute() bool {
	return r.ignoresSlots() || r.unread()
}

// clearComposed empties the idle slots that hold composed KV where the body cannot tell the
// backend to leave them alone. What is at work it will not choose.
func (d *decision) clearComposed(ctx context.Context) {
	if !d.wary() || !d.req.mute() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	lv := d.sh.live.Load()
	if lv == nil || !lv.users.begin() {
		d.sh.clearUnknown(ctx)
		return
	}
	defer lv.users.end()
	taken := lv.slots.takeComposed()
	if len(taken) == 0 {
		return
	}
	busy, _ := d.sh.backend.Busy(ctx)
	for _, sl := range taken {
		generation := sl.generation
		if d.sh.clear(ctx, sl.id, busy) {
			generation = 0
		}
		lv.slots.release(sl, "", nil, generation)
	}
}

// clearUnknown empties the idle slots of a backend of which nothing is known for now, once:
// until it is probed nothing is composed in them.
func (sh *Sharer) clearUnknown(ctx context.Context) {
	was := sh.uncleared.Load()
	if was == nil {
		return
	}
	busy, _ := sh.backend.Busy(ctx)
	n := max(was.Slots, len(busy))
	all := n > 0
	for i := range n {
		all = sh.clear(ctx, i, busy) && all
	}
	if all {
		sh.uncleared.CompareAndSwap(was, nil)
	}
}

// clear empties the slot if it is not at work, for all that is known.
func (sh *Sharer) clear(ctx context.Context, slot int, busy []bool) bool {
	return !atWork(busy, slot) && sh.backend.Erase(ctx, slot) == nil
}
