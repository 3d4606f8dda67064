package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/configs"
)

// TestTheServerIsGivenItsOwnNameOfATenantsConversation: what the client chose it never sees where
// tenants are kept apart.
func TestTheServerIsGivenItsOwnNameOfATenantsConversation(t *testing.T) {
	var seen http.Header
	b := startBackend(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() })
	named := func(edit func(*configs.Config), path string, headers ...string) string {
		t.Helper()
		s := startSidecar(t, b.URL, edit)
		seen = nil
		if status, text := do(t, http.MethodPost, s.url+path, `{"prompt":"a"}`, headers...); status != http.StatusOK || len(seen.Values(conversationHeader)) > 1 {
			t.Fatalf("%s: status %d, %s, the server saw %q", path, status, text, seen.Values(conversationHeader))
		}
		return seen.Get(conversationHeader)
	}
	f := func(what, got string, want bool) {
		t.Helper()
		if (got == "own") || (got != "") != want {
			t.Errorf("%s: the server was given %q; want a name of its own: %v", what, got, want)
		}
	}
	for _, path := range []string{"/completion", "/v1/chat/completions", "/v1/messages"} {
		if got := named(nil, path, conversationHeader, "own"); got != "own" {
			t.Errorf("%s, one tenant: the server was given %q; want the client's", path, got)
		}
	}
	f("a tenant", named(apart, "/completion", conversationHeader, "own", "X-Tenant", "us"), true)
	f("no identity", named(apart, "/completion", conversationHeader, "own"), false)
	f("what passes through", named(apart, "/tokenize", conversationHeader, "own", "X-Tenant", "us"), false)
	f("no conversation", named(apart, "/completion", "X-Tenant", "us"), false)
}

// TestALookUpOfConversationsIsBounded: the sidecar makes a name for each, before anybody looked at
// the client's key.
func TestALookUpOfConversationsIsBounded(t *testing.T) {
	f := func(want, ids int, id func(i int) string) {
		t.Helper()
		all := make([]string, ids)
		for i := range all {
			all[i] = id(i)
		}
		body := []byte(`{"conversation_ids":` + array(all) + `}`)
		got, err := (&exchange{}).lookUp(newConversations(nil), "us", body)
		if n := len(gjson.GetBytes(got, "conversation_ids").Array()); n != want || errors.Is(err, errUnreadable) != (ids > maxMembers) {
			t.Errorf("of %d ids the server is asked for %d, error %v; want %d", ids, n, err, want)
		}
	}
	own := func(i int) string { return quote(fmt.Sprint(i)) }
	f(maxMembers, maxMembers, own)
	f(0, maxMembers+1, own)
	f(1, maxMembers, func(int) string { return `"a"` })
	f(0, maxMembers+1, func(int) string { return `"a"` })
	f(0, maxMembers+1, func(int) string { return `0` })
	f(2, 5, func(i int) string { return []string{`"a"`, `"b"`, `"a"`, `7`, `""`}[i] })
}
