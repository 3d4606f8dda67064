package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

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
		other.overUnpinned(t.Context(), outcome{Status: http.StatusOK})
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
	f := func(apart bool, o outcome, want string) {
		t.Helper()
		sl.tenant = "x"
		d := &decision{sh: sh, unshared: u, book: u.slots, req: &request{Tenant: "x", Apart: true}}
		before := d.uncertain()
		over := sh.passes(t.Context(), apart)
		during := d.uncertain()
		over(o)
		if after := d.uncertain(); before || !during || after || sl.tenant != want {
			t.Errorf("apart %t, status %d: the book is uncertain before, during, after: %t, %t, %t, and the slot is %q's; expected false, true, false, %q",
				apart, o.Status, before, during, after, sl.tenant, want)
		}
	}
	f(false, outcome{Status: http.StatusOK}, "x")
	f(true, outcome{Status: http.StatusOK}, "")
	f(true, outcome{Status: http.StatusBadRequest}, "") // a prompt that is too long had a slot
	for _, status := range []int{http.StatusUnauthorized, http.StatusNotFound, http.StatusNotImplemented} {
		f(true, outcome{Status: status}, "x")
		f(true, outcome{Status: status, Err: errClientGone, ClientGone: true}, "x")
	}
}

// TestARequestOfNoSlotIsOverWhenTheServerIsDoneWithIt, not when its client is gone: it may not
// even have been read by then.
func TestARequestOfNoSlotIsOverWhenTheServerIsDoneWithIt(t *testing.T) {
	var working atomic.Bool
	working.Store(true)
	b := bridge.NewBackend(startBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `[{"id":0,"is_processing":false},{"id":1,"is_processing":%t}]`, working.Load())
	}).URL, "", time.Minute)
	t.Cleanup(b.Close)
	sh := &Sharer{backend: b, stop: func() {}}
	sh.passes(t.Context(), true)(outcome{Err: errClientGone, ClientGone: true})
	time.Sleep(unreadFor + 5*lookAtMost)
	if n := sh.unpinned.under(); n != 1 {
		t.Errorf("%d under way while the server is at work, expected 1", n)
	}
	working.Store(false)
	within(t, "it is over", func() bool { return sh.unpinned.under() == 0 })
}

// TestWhoHasNoKeyEndsNobodysSharing: the backend is asked before what may take any slot is sent.
func TestWhoHasNoKeyEndsNobodysSharing(t *testing.T) {
	var sent atomic.Int32
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/tokenize":
			fmt.Fprint(w, `{"tokens":[]}`)
		case r.URL.Path != "/embeddings":
			w.WriteHeader(http.StatusNotFound)
		}
		if r.URL.Path == "/embeddings" {
			sent.Add(1)
		}
	})
	f := func(apart bool, key string, want, wantSent int) {
		t.Helper()
		sent.Store(0)
		s := startSidecar(t, backend.URL, func(c *configs.Config) {
			c.Backend.APIKey, c.Backend.SlotDir = "secret", t.TempDir()
			if apart {
				c.Defaults.Tenant = configs.Tenant{Source: "api_key"}
			}
		})
		req, _ := http.NewRequest(http.MethodPost, s.url+"/embeddings", strings.NewReader("{}"))
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := freshClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want || sent.Load() != int32(wantSent) {
			t.Errorf("apart %t, key %q: status %d, sent %d times; expected %d and %d", apart, key, resp.StatusCode, sent.Load(), want, wantSent)
		}
	}
	f(true, "secret", http.StatusOK, 1)
	f(true, "guess", http.StatusUnauthorized, 0)
	f(false, "guess", http.StatusUnauthorized, 1)
}
