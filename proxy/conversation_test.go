package proxy

import (
	"net/http"
	"testing"

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
