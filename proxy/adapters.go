package proxy

import (
	"context"
	"net/http"
	"sync/atomic"

	"github.com/tidwall/gjson"
)

// LoRA adapters. Those that the backend applies by itself are part of the model key, and are
// looked at again when they were set through the sidecar. A request may name others: it is
// served from a slot that the same ones filled, and never shared nor kept. For the backend
// does not look at adapters where a request names none: it takes what the slot holds for its
// own, by whatever adapters that was computed.

// unknownAdapters filled a slot, or may have.
const unknownAdapters = "?"

// adaptersOf are those that a body names, as it writes them; "" where it names none.
func adaptersOf(body gjson.Result) string { return body.Get("lora").Raw }

// adapted takes a request that names adapters for another tenant's than those that do not:
// only what a slot holds is for it.
func (g *Generation) adapted() {
	if g.Adapters != "" && g.Tenant != "" {
		g.Tenant = digest(g.Tenant, "lora", g.Adapters)
	}
}

// otherAdapters: what the slot holds may have been computed by other adapters than the
// request's.
func (d *Decision) otherAdapters() bool {
	return d.lv.probed.Props.Adapters > 0 && d.slot.adapters != d.g.Adapters
}

// settle has the backend compute a token in the slot, to be filled without a request's
// adapters. It would else take what is filled in for computed by those of the request before.
func (d *Decision) settle(ctx context.Context) error {
	if !d.otherAdapters() {
		return nil
	}
	_, err := d.sh.backend.Prefill(ctx, d.slot.id, d.tokens[:1])
	if err == nil {
		d.slot.adapters = d.g.Adapters
	}
	return err
}

// scales follows the requests that set what adapters the backend applies.
type scales struct {
	under, set atomic.Int64 // how many are under way, and were answered
}

// setsScales reports whether the request is one.
func setsScales(method, path string) bool {
	return method == http.MethodPost && path == "/lora-adapters"
}

// setting notes that one is sent; done is called with whether it may have been heeded.
func (sh *Sharer) setting() (done func(heeded bool)) {
	sh.scales.under.Add(1)
	return func(heeded bool) {
		if heeded {
			sh.scales.set.Add(1)
			if lv := sh.live.Load(); lv != nil {
				sh.doubt(lv, scalesSet, 0)
			}
		}
		sh.scales.under.Add(-1)
	}
}

const scalesSet = "the scales of the backend's adapters were set"

// rescaled: the backend may apply other adapters than when it was probed.
func (lv *live) rescaled(sh *Sharer) bool {
	return sh.scales.under.Load() > 0 || sh.scales.set.Load() != lv.scales
}
