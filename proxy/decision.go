package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/semsharekv/semsharekv/configs"
)

// Why a request is cold; a fixed set, since they label metrics.
const (
	coldUnavailable = "backend cannot share"
	coldNoTenant    = "no tenant"
	coldRefused     = "key refused"
	coldTokens      = "tokens unknown"
	coldShort       = "short prompt"
	coldLong        = "prompt too long"
	coldIndex       = "index unavailable"
	coldNothing     = "nothing similar"
	coldDissimilar  = "below minimum similarity"
	coldNoGain      = "no gain"
	coldLate        = "time budget"
	coldBusy        = "no slot free"
	coldReference   = "reference lost"
	coldFill        = "injection failed"
	coldCells       = "no free cells"
	coldClientGone  = "client gone"
	coldFault       = "fault in sharing"
	coldExactOnly   = "no exact prefix"
	coldScattered   = "slot chosen by backend"
)

// Decision is how a generation request is forwarded.
type Decision struct {
	// Body is what goes to the backend.
	Body []byte
	// Header is the value of the X-SemShareKV response header.
	Header string
	State  State
	Reason string
	// Slot is the pinned slot, or -1 where the server chooses.
	Slot int

	sh         *Sharer
	g          *Generation
	lv         *live // nil where nothing is known of the backend
	slot       *slot
	all        bool // it has all slots, not one
	isLoose    bool
	unsafe     string // why it might find another tenant's prompt, so that it must not be sent
	tokens     []int32
	generation int  // of the KV that the slot will hold
	reach      int  // how much of the prompt the slot held, at most, by the book
	whole      bool // the prompt goes on with all that the slot held, by the book
	expect     int  // cache_n if all is well; -1 not known
	seen       int  // how often a prompt like it was asked before
	report     Report
	gated      bool
	over       chan struct{} // closed by Finish
	trial      *Trial
	level      *Level // what the quality target asks for; nil where the policy's shares decide
}

// Prepare decides, and fills a slot where sharing pays. It never fails: every
// fault ends in a cold Decision, with the body as it came or, where it would find KV that
// is not for it, told to find none.
func (sh *Sharer) Prepare(ctx context.Context, g *Generation) *Decision {
	sh.active.begin()
	d := &Decision{Body: g.Body, State: StateCold, Slot: -1, sh: sh, g: g, expect: -1, over: make(chan struct{})}
	d.underTrial()
	d.guarded(ctx)
	d.sentLoose(ctx)
	if d.Header == "" {
		d.Header = "cold; reason=" + d.Reason
	}
	return d
}

// guarded decides, and goes cold where that panics: a fault in sharing must not
// cost the request.
func (d *Decision) guarded(ctx context.Context) {
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
			d.unsafe = d.g.searches()
		default:
			d.leave(ctx, coldFault)
		}
	}()
	d.decide(ctx)
}

// decide takes the steps of a request one after the other until one settles it.
func (d *Decision) decide(ctx context.Context) {
	d.clearComposed(ctx)
	lv := d.sh.live.Load()
	if d.g.Policy.Reuse == configs.ReuseOff && !d.g.Apart {
		d.g.adapted(lv)
		d.cold(d.g.Off)
		return
	}
	if lv != nil && lv.users.begin() {
		d.lv = lv
	}
	d.g.adapted(d.lv)
	if reason := d.ruledOut(); reason != "" {
		d.leave(ctx, reason)
		return
	}
	p, reason := d.match(ctx)
	if d.tokens == nil {
		d.leave(ctx, reason)
		return
	}
	d.inject(ctx, p, reason)
}

// ruledOut is why the request is cold whatever its prompt, or "".
func (d *Decision) ruledOut() string {
	switch {
	case d.g.Policy.Reuse == configs.ReuseOff:
		return d.g.Off
	case d.g.Tenant == "":
		return coldNoTenant
	case d.lv == nil:
		return coldUnavailable
	case d.g.Off != "":
		return d.g.Off
	case d.g.Scattered:
		return coldScattered
	}
	return ""
}

// step observes the time of one step since start.
func (sh *Sharer) step(name string, start time.Time) {
	sh.metrics.Steps.WithLabelValues(name).Observe(time.Since(start).Seconds())
}
