package proxy

import (
	"context"
	"strconv"

	"github.com/tidwall/gjson"
)

// cold sends the body as the client sent it. Where tenants are kept apart, it must not
// find what another's prompt left in a slot, and where it wants the model's own, not what
// was composed.
func (d *decision) cold(reason string) {
	d.State, d.Reason, d.Header = StateCold, reason, ""
	d.Body = d.req.Body
	if d.req.Apart || d.wary() && !d.req.mute() {
		d.set("cache_prompt", "false")
	}
}

// leaveToBackend leaves the choice of slot to the backend too. Where tenants are kept apart
// the request gets a slot all the same: in one that the book takes for another's, its prompt
// could be found. One that the backend scatters gets all of them.
func (d *decision) leaveToBackend(ctx context.Context, reason string) {
	d.cold(reason)
	switch {
	case !d.req.Apart:
	case d.lv == nil:
		d.unsafe = d.req.searches()
	case d.req.Scattered:
		d.takeAll(ctx)
	default:
		if d.slot, _ = d.lv.slots.acquire(ctx, d.req.Tenant, nil, 1, 0); d.slot != nil {
			d.choose()
		}
	}
}

// takeAll takes all slots for the request, emptied of others' prompts where the backend
// would look for a prefix in them and takes no word against it.
func (d *decision) takeAll(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, d.sh.cfg.Limits.SlotWait)
	defer cancel()
	d.all = d.lv.slots.acquireAll(wait)
	switch {
	case !d.all:
		d.unsafe = "it needs all of the server's slots, which were not idle at one time within limits.slot_wait"
	case d.req.searches() != "" && (d.uncertain() || !d.eraseForeign()):
		d.unsafe = d.req.searches()
	}
}

// choose pins the request to its slot.
func (d *decision) choose() {
	d.Slot = d.slot.id
	d.set("id_slot", strconv.Itoa(d.slot.id))
}

// eraseForeign empties the slots that hold others' prompts, or KV that the request cannot
// bear. All slots are acquired.
func (d *decision) eraseForeign() bool {
	ok := true
	for _, sl := range d.lv.slots.all {
		if sl.tenant != d.req.Tenant || len(sl.tokens) == 0 || sl.generation > d.maxGeneration() || d.lv.slots.isDoubted(sl) {
			ok = d.erase(sl) && ok
		}
	}
	return ok
}

// set gives the body's top level a member of that name and no other. Bodies that cannot be
// read are refused before, where tenants are kept apart, and elsewhere go as they came.
func (d *decision) set(key, raw string) {
	body := gjson.ParseBytes(d.Body)
	if !body.IsObject() {
		return
	}
	o := objectOf(body)
	o.set(key, raw)
	d.Body = []byte(o.json())
}
