package proxy

import (
	"context"
	"strconv"

	"github.com/tidwall/gjson"
)

// cold sends the body as the client sent it. Where tenants are kept apart, it must not
// find what another's prompt left in a slot, and where it wants the model's own, not what
// was composed.
func (d *Decision) cold(reason string) {
	d.State, d.Reason, d.Header = StateCold, reason, ""
	d.Body = d.g.Body
	if d.g.Apart || d.wary() && !d.g.mute() {
		d.set("cache_prompt", "false")
	}
}

// leave leaves the request to the backend, and the choice of slot with it. Where tenants
// are kept apart it gets a slot all the same: in one that the book takes for another's,
// its prompt could be found. A request that the backend scatters gets all of them.
func (d *Decision) leave(ctx context.Context, reason string) {
	d.cold(reason)
	switch {
	case !d.g.Apart:
	case d.lv == nil:
		d.unsafe = d.g.searches()
	case d.g.Scattered:
		d.takeAll(ctx)
	default:
		if d.slot, _ = d.lv.slots.acquire(ctx, d.g.Tenant, nil, 1, 0); d.slot != nil {
			d.choose()
		}
	}
}

// takeAll takes all slots for the request, emptied of others' prompts where the backend
// would look for a prefix in them and takes no word against it.
func (d *Decision) takeAll(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, d.sh.cfg.Limits.SlotWait)
	defer cancel()
	d.all = d.lv.slots.acquireAll(wait)
	switch {
	case !d.all:
		d.unsafe = "it needs all of the server's slots, which were not idle at one time within limits.slot_wait"
	case d.g.searches() != "" && (d.uncertain() || !d.eraseForeign()):
		d.unsafe = d.g.searches()
	}
}

// choose pins the request to its slot.
func (d *Decision) choose() {
	d.Slot = d.slot.id
	d.set("id_slot", strconv.Itoa(d.slot.id))
}

// eraseForeign empties the slots that hold others' prompts, or KV that the request cannot
// bear. All slots are acquired.
func (d *Decision) eraseForeign() bool {
	ok := true
	for _, sl := range d.lv.slots.all {
		if sl.tenant != d.g.Tenant || sl.tenant == "" || sl.generation > d.bearable() || d.lv.slots.isDoubted(sl) {
			ok = d.erase(sl) && ok
		}
	}
	return ok
}

// set gives the body's top level a member of that name and no other. Bodies that cannot be
// read are refused before, where tenants are kept apart, and elsewhere go as they came.
func (d *Decision) set(key, raw string) {
	body := gjson.ParseBytes(d.Body)
	if !body.IsObject() {
		return
	}
	o := objectOf(body)
	o.set(key, raw)
	d.Body = []byte(o.json())
}
