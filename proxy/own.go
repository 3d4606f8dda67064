package proxy

import (
	"context"
	"time"
)

// The model's own answer: routes with reuse off or exact, and clients with X-SemShareKV: off,
// want nothing of KV that was composed. It stands in slots, where the backend's own prefix
// match would find it, and may have gone on from there: into its cache in memory, or, for
// several answers, into other slots. So from the first fill on their requests are sent such
// that nothing is found but what the book knows to be the model's own.

// clearTimeout bounds how long a request waits for composed slots to be emptied.
const clearTimeout = time.Second

// bearable is the highest generation of KV that the request may be answered from.
func (d *Decision) bearable() int {
	switch {
	case d.g.Own:
		return 0
	case d.g.Policy.Retention < 1:
		return thinned
	}
	return unknown
}

// wary: the backend might find composed KV for a request that wants the model's own.
func (d *Decision) wary() bool { return d.g.Own && d.sh.composed.Load() }

// mute reports whether the body cannot tell the backend to find nothing.
func (g *Generation) mute() bool {
	return g.unheeding() || g.unread()
}

// clearComposed empties the idle slots that hold composed KV where the body cannot tell the
// backend to leave them alone. What is at work it will not choose.
func (d *Decision) clearComposed(ctx context.Context) {
	lv := d.sh.live.Load()
	if !d.wary() || !d.g.mute() || lv == nil || !lv.users.begin() {
		return
	}
	defer lv.users.end()
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	busy, _ := d.sh.backend.Busy(ctx)
	for _, sl := range lv.slots.takeComposed() {
		generation := sl.generation
		if at := sl.id; at >= len(busy) || !busy[at] {
			if d.sh.backend.Erase(ctx, at) == nil {
				generation = 0
			}
		}
		lv.slots.release(sl, "", nil, generation)
	}
}
