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
	case d.book == nil:
		d.unsafe = d.ifSearched(d.sh.unknownSlots())
	case d.req.Scattered:
		d.takeAll(ctx)
	case d.unshared != nil:
		d.takeOwn(ctx)
	default:
		if d.slot, _ = d.acquireIdle(ctx, nil, 1, 0); d.slot != nil {
			d.choose()
		}
	}
}

// Why a request is not sent that could find another tenant's prompt.
const (
	busySlots    = "it needs all of the server's slots, which were not idle at one time within limits.slot_wait"
	invalidKey   = "Invalid API Key" // as the backend has it
	unsafeSlots  = "/v1/messages takes no cache_prompt, and other tenants' slots could not be emptied, which takes a llama-server with --slot-save-path and a model without images; /v1/chat/completions needs none of that"
	earlierSlots = "/v1/messages takes no cache_prompt, and requests from before the server was tried out, or at endpoints that the sidecar does not know, take longer than limits.slot_wait, in nobody knows which slots; try again, or use /v1/chat/completions"
	lentSlots    = "/v1/messages takes no cache_prompt, and llama-server may load what it keeps of others' prompts in memory: start it with --cache-ram 0, or use /v1/chat/completions"
	unknownSlots = "/v1/messages takes no cache_prompt, and what the server's slots hold is not known: it is yet to be tried out, or cannot be; try again, or use /v1/chat/completions"
)

// ifSearched returns why if the backend would look for the prompt in any slot, whatever the
// body says. Else it is empty.
func (d *decision) ifSearched(why string) string {
	if !d.req.ignoresSlots() {
		return ""
	}
	return why
}

// takeAll takes all slots for the request. If the backend would search them for its prompt,
// takeAll first waits for requests that the book does not know, and erases other tenants'
// prompts. A client that the backend does not admit gets nothing of that, so that it holds up
// nobody.
func (d *decision) takeAll(ctx context.Context) {
	wait, cancel := context.WithTimeout(ctx, d.sh.cfg.Limits.SlotWait)
	defer cancel()
	if d.sh.turnsAway(wait, d.req.Authorization) {
		d.cold(coldRefused)
		d.unsafe = invalidKey
		return
	}
	if d.req.ignoresSlots() && d.lv != nil && d.lv.remembers {
		d.unsafe = lentSlots
		return
	}
	if d.req.ignoresSlots() && !d.sh.unpinned.wait(wait) {
		d.unsafe = earlierSlots
		return
	}
	d.all = d.book.acquireAll(wait)
	switch {
	case !d.all:
		d.unsafe = busySlots
	case d.req.ignoresSlots() && d.uncertain():
		d.unsafe = unknownSlots
	case d.req.ignoresSlots():
		if err := d.eraseForeign(); err != nil {
			d.unsafe = unsafeSlots + ": " + err.Error()
		}
	}
}

// choose pins the request to its slot.
func (d *decision) choose() {
	d.Slot = d.slot.id
	d.set("id_slot", strconv.Itoa(d.slot.id))
}

// eraseForeign empties the slots that hold others' prompts, or KV that the request cannot
// bear. All slots are acquired.
func (d *decision) eraseForeign() (err error) {
	for _, sl := range d.book.all {
		if sl.tenant != d.req.Tenant || len(sl.tokens) == 0 || sl.generation > d.maxGeneration() || d.book.isDoubted(sl) {
			if failed := d.erase(sl); err == nil {
				err = failed
			}
		}
	}
	return err
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
