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
