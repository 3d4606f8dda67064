package proxy

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/semsharekv/semsharekv/configs"
)

// Why a request is cold; a fixed set, since they label metrics.
const (
	coldUnavailable = "backend cannot share"
	coldNoTenant    = "no tenant"
	coldRefused     = "key refused"
	coldTokens      = "tokens unknown"
	coldShort       = "short prompt"
	coldIndex       = "index unavailable"
	coldNothing     = "nothing similar"
	coldDissimilar  = "below minimum similarity"
	coldNoGain      = "no gain"
	coldLate        = "time budget"
	coldBusy        = "no slot free"
	coldReference   = "reference lost"
	coldFill        = "injection failed"
	coldClientGone  = "client gone"
	coldFault       = "fault in sharing"
	coldExactOnly   = "no exact prefix"
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
	tokens     []int32
	generation int // of the KV that the slot will hold
	expect     int // cache_n if all is well; -1 not known
	seen       int // how often a prompt like it was asked before
	report     Report
	gated      bool
	over       chan struct{} // closed by Finish
	trial      *Trial
	level      *Level // what the quality target asks for; nil where the policy's shares decide
}

// Prepare decides, and fills a slot where sharing pays. It never fails: every
// fault ends in a cold Decision with the untouched body.
func (sh *Sharer) Prepare(ctx context.Context, g *Generation) *Decision {
	start := time.Now()
	sh.active.begin()
	d := &Decision{Body: g.Body, State: StateCold, Slot: -1, sh: sh, g: g, expect: -1, over: make(chan struct{})}
	d.underTrial()
	d.guarded(ctx)
	d.report.Total = time.Since(start)
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
		if d.slot != nil {
			d.giveUp(coldFault)
			return
		}
		d.cold(coldFault)
	}()
	d.decide(ctx)
}

// decide takes the steps of a request one after the other until one settles it.
func (d *Decision) decide(ctx context.Context) {
	lv := d.sh.live.Load()
	switch {
	case d.g.Policy.Reuse == configs.ReuseOff:
		d.Reason = d.g.Off
		return
	case d.g.Tenant == "":
		d.cold(coldNoTenant)
		return
	case lv == nil || !lv.users.begin():
		d.cold(coldUnavailable)
		return
	}
	d.lv = lv
	if d.g.Off != "" {
		d.cold(d.g.Off)
		return
	}
	p, reason := d.match(ctx)
	if d.tokens == nil {
		d.cold(reason)
		return
	}
	d.inject(ctx, p, reason)
}

// cold leaves the request to the backend, and the choice of slot with it. Where
// tenants differ, it must not find what another's prompt left in a slot.
func (d *Decision) cold(reason string) {
	d.State, d.Reason, d.Header = StateCold, reason, ""
	d.Body = d.g.Body
	if d.g.Policy.Tenant.Source != "shared" && gjson.ValidBytes(d.Body) {
		d.set("cache_prompt", false)
	}
}

func (d *Decision) set(key string, value any) {
	if body, err := sjson.SetBytes(d.Body, key, value); err == nil {
		d.Body = body
	}
}

// step observes the time of one step since start.
func (sh *Sharer) step(name string, start time.Time) {
	sh.metrics.Steps.WithLabelValues(name).Observe(time.Since(start).Seconds())
}
