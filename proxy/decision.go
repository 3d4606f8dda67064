package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/semsharekv/semsharekv/configs"
)

// decision is how a generation request is forwarded.
type decision struct {
	// Body is what goes to the backend.
	Body []byte
	// Header is the value of the X-SemShareKV response header.
	Header string
	State  State
	Reason string
	// Slot is the pinned slot, or -1 where the server chooses.
	Slot int

	sh         *Sharer
	req        *request
	lv         *live     // nil where nothing can be shared
	unshared   *unshared // whose book it goes by there, where tenants are kept apart; nil where there is none
	book       *slots    // the book that it goes by; nil where there is none
	slot       *slot
	touched    bool // a fill was begun, so that the slot holds nobody knows what until it ends
	all        bool // it has all slots, not one
	isUnpinned bool
	overBefore int64  // unpinned requests that were over when the slot was acquired
	unsafe     string // why it might find another tenant's prompt, so that it must not be sent
	tokens     []int32
	exact      *exactTokens // nil where tokens are those of the whole prompt
	generation int          // of the KV that the slot will hold
	reach      int          // how much of the prompt the slot held, at most, by the book
	whole      bool         // the prompt goes on with all that the slot held, by the book
	expect     int          // cache_n if all is well, where the state is shared
	seen       int          // how often a prompt like it was asked before
	report     Report
	gated      bool
	over       chan struct{} // closed by finish
	trial      *Trial
	level      *Level // what the quality target asks for; nil where the policy's shares decide
}

// prepare decides, and fills a slot where sharing pays. Every fault ends in a cold
// decision, with the body as it came or, where it would find KV that is not for it, told to
// find none; unsafe is set where that cannot be told, and then it is refused.
func (sh *Sharer) prepare(ctx context.Context, req *request) *decision {
	sh.active.begin()
	d := &decision{Body: req.Body, State: StateCold, Slot: -1, sh: sh, req: req, over: make(chan struct{})}
	d.underTrial()
	d.guarded(ctx)
	d.sentUnpinned(ctx)
	if d.Header == "" {
		d.Header = "cold; reason=" + d.Reason
	}
	return d
}

// guarded decides, and goes cold where that panics: a fault in sharing must not
// cost the request.
func (d *decision) guarded(ctx context.Context) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		d.sh.metrics.Panics.Inc()
		d.sh.log.Error().Str("panic", fmt.Sprint(r)).Bytes("stack", debug.Stack()).Msg("recovered; the request goes cold")
		switch {
		case d.slot != nil:
			d.giveUp(coldFault)
		case d.all:
			d.cold(coldFault)
			d.unsafe = d.ifSearched(unsafeSlots)
		default:
			d.leaveToBackend(ctx, coldFault)
		}
	}()
	d.decide(ctx)
}

// decide takes the steps of a request one after the other until one settles it.
func (d *decision) decide(ctx context.Context) {
	d.sh.hold.wait(ctx)
	d.clearComposed(ctx)
	lv := d.sh.live.Load()
	if d.req.Policy.Reuse == configs.ReuseOff && !d.req.Apart {
		d.req.adapted(lv)
		d.cold(d.req.Off)
		return
	}
	if lv != nil && lv.users.begin() {
		d.lv, d.book = lv, lv.slots
	} else if d.req.Apart {
		d.goUnshared()
	}
	d.req.adapted(d.lv)
	if reason := d.ruledOut(); reason != "" {
		d.leaveToBackend(ctx, reason)
		return
	}
	p, reason := d.match(ctx)
	if d.tokens == nil { // nothing to look for in slots; with tokens and no plan, an exact prefix
		d.leaveToBackend(ctx, reason)
		return
	}
	d.inject(ctx, p, reason)
}

// ruledOut is why the request is cold whatever its prompt, or "".
func (d *decision) ruledOut() string {
	switch {
	case d.req.Policy.Reuse == configs.ReuseOff:
		return d.req.Off
	case d.req.Tenant == "":
		return coldNoTenant
	case d.lv == nil:
		return coldUnavailable
	case d.req.Off != "":
		return d.req.Off
	case d.req.Scattered:
		return coldScattered
	}
	return ""
}

// step observes the time of one step since start.
func (sh *Sharer) step(name string, start time.Time) {
	sh.metrics.Steps.WithLabelValues(name).Observe(time.Since(start).Seconds())
}
