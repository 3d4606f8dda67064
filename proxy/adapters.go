package proxy

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/bridge"
)

// LoRA adapters. Those that the backend applies by itself are part of the model key, and are
// looked at again after each request that sets them through the sidecar. A request may name
// others: it is served from a slot that the same ones filled, and never shared nor kept. For
// the backend does not look at adapters where a request names none: it takes what the slot
// holds for its own, by whatever adapters that was computed.

// unknownAdapters filled a slot, or may have.
const unknownAdapters = "?"

// adaptersOf returns the adapters that a body names, as written there. It is empty if the body
// names none. An empty list is something else: older servers then apply none, newer ones their
// own. If there are two lists both count: we cannot know which one the backend takes.
func adaptersOf(body gjson.Result) string {
	var named strings.Builder
	body.ForEach(func(k, v gjson.Result) bool {
		if k.String() == "lora" && v.Type != gjson.Null {
			named.WriteString(v.Raw)
		}
		return true
	})
	return named.String()
}

// adapted gives a request that names adapters a tenant of its own, so that it matches only
// slots that the same adapters filled. An empty list counts as none if the backend has no
// adapters loaded.
func (r *request) adapted(lv *live) {
	if lv != nil && lv.probed.Props.Adapters == 0 && gjson.Get(r.Adapters, "#").Int() == 0 {
		r.Adapters = ""
	}
	if r.Adapters != "" && r.Tenant != "" {
		r.Tenant = digest(r.Tenant, "lora", r.Adapters)
	}
}

// otherAdapters: what the slot holds may have been computed by other adapters than the
// request's.
func (d *decision) otherAdapters() bool {
	return d.lv.probed.Props.Adapters > 0 && d.slot.adapters != d.req.Adapters
}

// useAdapters has the backend compute a token in the slot, to be filled without a request's
// adapters. It would else take what is filled in for computed by those of the request before.
func (d *decision) useAdapters(ctx context.Context) error {
	if !d.otherAdapters() {
		return nil
	}
	_, err := d.sh.backend.Prefill(ctx, d.slot.id, d.tokens[:1])
	if err == nil {
		d.slot.adapters = d.req.Adapters
	}
	return err
}

// scales follows what adapters the backend applies by itself.
type scales struct {
	// turn is taken by a request that sets them, until it is known what came of it, and by a
	// probe that asks for them. It is one at a time: one may undo what another did.
	turn    gate         // nil if nothing is shared
	applied string       // as the last probe found them; whose turn it is owns it
	loaded  int          // as applied
	set     atomic.Int64 // how often they were found to be others than applied
}

// setsScales reports whether the request is one.
func setsScales(method, path string) bool {
	return method == http.MethodPost && path == "/lora-adapters"
}

// setting waits for the turn of a request that sets scales. done is called with whether it
// may have been heeded.
func (sh *Sharer) setting(ctx context.Context) (done func(heeded bool)) {
	if sh.scales.turn == nil || !sh.scales.turn.enter(ctx) {
		return func(bool) {}
	}
	return func(heeded bool) {
		if !heeded {
			sh.scales.turn.leave()
			return
		}
		sh.running.Go(sh.wereSet)
	}
}

// wereSet ends sharing if the backend applies other adapters than when it was probed, or
// does not tell: many set what is set, or hang up before it is.
func (sh *Sharer) wereSet() {
	defer sh.scales.turn.leave()
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	applied, loaded, err := sh.backend.Adapters(ctx)
	if err == nil && applied == sh.scales.applied && loaded == sh.scales.loaded {
		return
	}
	sh.scales.set.Add(1)
	if lv := sh.live.Load(); lv != nil {
		sh.doubt(lv, scalesSet, 0)
	}
}

const scalesSet = "the scales of the backend's adapters were set"

// askAdapters completes what the backend says of itself by its adapters; set is how often
// scales had been set by then.
func (sh *Sharer) askAdapters(ctx context.Context, p *bridge.Props) (set int64, err error) {
	if !sh.scales.turn.enter(ctx) {
		return 0, ctx.Err()
	}
	defer sh.scales.turn.leave()
	p.LoRA, p.Adapters, err = sh.backend.Adapters(ctx)
	sh.scales.applied, sh.scales.loaded = p.LoRA, p.Adapters
	return sh.scales.set.Load(), err
}

// rescaled: the backend may apply other adapters than when it was probed. One that has none
// loaded cannot, whoever sets scales.
func (lv *live) rescaled(sh *Sharer) bool {
	return lv.probed.Props.Adapters > 0 && len(sh.scales.turn) > 0 || sh.scales.set.Load() != lv.scales
}
