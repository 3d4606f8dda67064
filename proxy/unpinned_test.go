package proxy

import "testing"

// TestRequestsWithoutASlotMayOverrunAFill, whatever slot the book has for them.
func TestRequestsWithoutASlotMayOverrunAFill(t *testing.T) {
	f := func(name string, endpoint Endpoint, slot int, want bool) {
		t.Helper()
		sh := &Sharer{}
		other := &decision{sh: sh, req: &request{Endpoint: endpoint}, Slot: slot}
		fill := func() *decision { return &decision{sh: sh, overBefore: sh.unpinned.over.Load()} }
		before := fill()
		if before.overrun() {
			t.Errorf("%s: overrun before it was sent", name)
		}
		other.sentUnpinned(t.Context())
		during := fill()
		other.overUnpinned(t.Context())
		after := fill()
		if before.overrun() != want || during.overrun() != want || after.overrun() {
			t.Errorf("%s: overrun: a fill from before it %v, from meanwhile %v, from after it %v; expected %v, %v and false",
				name, before.overrun(), during.overrun(), after.overrun(), want, want)
		}
	}
	f("a slot of its own", EndpointCompletion, 1, false)
	f("the server's choice", EndpointCompletion, -1, true)
	f("no word about slots is taken", EndpointMessages, 1, true)
}

// TestWhatPassesThroughMayTakeASlot unless it is known to take none.
func TestWhatPassesThroughMayTakeASlot(t *testing.T) {
	f := func(method, path string, want bool) {
		t.Helper()
		if got := mayTakeSlot(method, path); got != want {
			t.Errorf("%s %s may take a slot: %t, expected %t", method, path, got, want)
		}
	}
	f("POST", "/v1/systemone", true)
	f("POST", "/v1/audio/transcriptions", true)
	f("POST", "/v1/embeddings", true)
	f("POST", "/slots/0", true)
	f("POST", "/v1/nobody/knows", true)
	f("GET", "/v1/nobody/knows", false)
	f("POST", "/tokenize", false)
	f("POST", "/lora-adapters", false)
	f("POST", "/v1/messages/count_tokens", false)
}

// TestWhatPassesThroughMakesTheBookDoubtful, where tenants are kept apart.
func TestWhatPassesThroughMakesTheBookDoubtful(t *testing.T) {
	sh := &Sharer{}
	sh.unshared.Store(&unshared{slots: newSlots(1)})
	u := sh.unshared.Load()
	sl := u.slots.all[0]
	f := func(apart bool, want string) {
		t.Helper()
		sl.tenant = "x"
		d := &decision{sh: sh, unshared: u, book: u.slots, req: &request{Tenant: "x", Apart: true}}
		before := d.uncertain()
		over := sh.passes(apart)
		during := d.uncertain()
		over()
		if after := d.uncertain(); before || !during || after || sl.tenant != want {
			t.Errorf("apart %t: the book is uncertain before, during, after: %t, %t, %t, and the slot is %q's; expected false, true, false, %q",
				apart, before, during, after, sl.tenant, want)
		}
	}
	f(false, "x")
	f(true, "")
}
