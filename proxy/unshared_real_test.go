package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// booked starts a sidecar that keeps tenants apart beside a server whose model cannot be shared,
// and waits until it has a book of its slots.
func booked(t *testing.T, o lab.BackendOptions) *sharing {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real llama-server")
	}
	o.Model, o.Context = tinymodel.Make(t, tinymodel.Options{Arch: "deci", Layers: 3}), 4096
	s := unprobed(t, lab.StartBackend(t, o), apart)
	within(t, "a book of slots is kept", func() bool { return s.server.sharer.unshared.Load() != nil })
	return s
}

// turn is a chat's request with so much said before.
func turn(said ...string) string {
	messages := []map[string]string{}
	for i, text := range said {
		messages = append(messages, map[string]string{"role": []string{"user", "assistant"}[i%2], "content": text})
	}
	b, _ := json.Marshal(map[string]any{"max_tokens": 2, "messages": messages})
	return string(b)
}

// found is how many tokens of the prompt the backend found.
func (s *sharing) found(tenant, path, body string) int64 {
	s.t.Helper()
	headers := []string{"X-Tenant", tenant}
	if tenant == "" {
		headers = nil
	}
	r := s.post(path, body, headers...)
	if r.status != http.StatusOK || r.did != "cold; reason="+coldUnavailable && tenant != "" {
		s.t.Fatalf("tenant %q, %s: status %d, %s: %s", tenant, path, r.status, r.did, r.body)
	}
	return cached(r.body)
}

func TestATenantFindsItsOwnPrefixesWhereNothingIsShared(t *testing.T) {
	s := booked(t, lab.BackendOptions{Slots: 3, NoRAMCache: true})
	const chat = "/v1/chat/completions"
	story, other := tale("1812")[:600], strings.Repeat("Another story, of a mill and its miller. ", 15)
	f := func(what, tenant, body string, least, most int64) {
		t.Helper()
		if n := s.found(tenant, chat, body); n < least || n > most {
			t.Errorf("%s: %d tokens found, expected %d to %d", what, n, least, most)
		}
	}
	const all = 1 << 20
	f("x's first turn", "x", turn(story), 0, 0)
	f("x's other chat", "x", turn(other), 0, 0)
	f("y's prompt, which is x's", "y", turn(story), 0, 0)
	f("x's second turn", "x", turn(story, "Yes.", "And then?"), 500, all)
	f("the other chat's", "x", turn(other, "Yes.", "And then?"), 500, all)
	f("without identity", "", turn(story), 0, 0)
	f("and once more", "", turn(story), 0, 0)
	for _, tenant := range []string{"a", "b", "c"} { // in all slots
		f("others", tenant, turn(other), 0, 0)
	}
	f("x's third turn", "x", turn(story, "Yes.", "And then?", "Well.", "Go on."), 0, 0)
	f("x's fourth turn", "x", turn(story, "Yes.", "And then?", "Well.", "Go on.", "So.", "So?"), 500, all)
}

// TestAnEmptyPromptTakesNobodysPlaceInASlot: it leaves what another tenant asked where it was.
func TestAnEmptyPromptTakesNobodysPlaceInASlot(t *testing.T) {
	s := booked(t, lab.BackendOptions{Slots: 1, NoRAMCache: true})
	story := turn(tale("1812")[:600])
	s.found("x", "/v1/chat/completions", story)
	s.found("y", "/completion", `{"n_predict":1,"prompt":""}`)
	if n := s.found("y", "/v1/chat/completions", story); n != 0 {
		t.Errorf("y found %d tokens of x's prompt, expected none", n)
	}
}

func TestWhatTakesAllSlotsIsAnsweredWhereNothingIsShared(t *testing.T) {
	s := booked(t, lab.BackendOptions{Slots: 2, NoRAMCache: true})
	story := turn(tale("1812")[:600])
	for _, path := range []string{"/v1/chat/completions", "/v1/messages"} {
		if n := s.found("y", path, story); n != 0 {
			t.Errorf("y's %s: %d tokens found, expected none", path, n)
		}
		for _, of := range []string{"/v1/messages", "/v1/chat/completions"} {
			if n := s.found("x"+path, of, story); n != 0 {
				t.Errorf("x's %s after y's %s: %d tokens found, expected none", of, path, n)
			}
		}
	}
	list := `{"n_predict":1,"prompt":["Tell me of the sea, and of all that is in it.","Tell me of the sea, and of all that is in it."]}`
	if n := s.found("y", "/completion", list); n != 0 {
		t.Errorf("y's list: %d tokens found, expected none", n)
	}
	if n := s.found("x", "/completion", list); n != 0 {
		t.Errorf("x's list: %d tokens found, expected none", n)
	}
}

// TestNoBookIsKeptWhereOthersPromptsAreLoaded: the server loads what it has in memory into a slot
// that the request names.
func TestNoBookIsKeptWhereOthersPromptsAreLoaded(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real llama-server")
	}
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Arch: "deci", Layers: 3}), Context: 4096})
	s := unprobed(t, b, apart)
	within(t, "it was tried out", func() bool { return s.server.sharer.tried.Load() })
	time.Sleep(100 * time.Millisecond)
	loads, err := s.server.sharer.backend.Remembers(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if kept := s.server.sharer.unshared.Load() != nil; kept == loads {
		t.Errorf("prompts are loaded from memory: %t, a book is kept: %t", loads, kept)
	}
	if !loads {
		t.Skip("this server loads nothing into a slot that the request names")
	}
	r := s.post("/v1/messages", turn("Tell me of the sea."), "X-Tenant", "x")
	if r.status != http.StatusServiceUnavailable || !strings.Contains(gjson.Get(r.body, "error.message").String(), "--cache-ram 0") {
		t.Errorf("status %d, %s; expected 503 and what is to be done", r.status, r.body)
	}
}

// TestABookIsForgottenWithItsServer: another server has others' prompts in its slots.
func TestABookIsForgottenWithItsServer(t *testing.T) {
	s := booked(t, lab.BackendOptions{Slots: 2, NoRAMCache: true})
	const chat = "/v1/chat/completions"
	story := tale("1812")[:600]
	if n := s.found("x", chat, turn(story)); n != 0 {
		t.Fatalf("%d tokens found, expected none", n)
	}
	before := s.server.sharer.unshared.Load()
	if err := s.backend.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	within(t, "another book is kept", func() bool {
		u := s.server.sharer.unshared.Load()
		return u != nil && u != before
	})
	if before.users.begin() {
		t.Error("the book of the server before can still be gone by")
	}
	for _, u := range s.server.sharer.unshared.Load().slots.all {
		if u.tenant != "" {
			t.Errorf("slot %d is a tenant's in a new book", u.id)
		}
	}
}
