package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// TestConversationsAreTheirTenantsOwn: by an id that two tenants chose, neither ends the
// other's answer, reads it or learns of it, and each takes up its own again.
func TestConversationsAreTheirTenantsOwn(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 4096}, apart)
	const id = "same id+%41&conv_id=other"
	query := "/v1/stream?from=0&conv_id=same%20id%2B%2541%26conv_id%3Dother"
	ids := `{"conversation_ids":["none","` + id + `"]}`

	first := s.converse("x", id, 300)
	begun := make([]byte, 1)
	if _, err := io.ReadFull(first, begun); err != nil {
		t.Fatal(err)
	}
	second, _ := io.ReadAll(s.converse("y", id, 4))
	rest, err := io.ReadAll(first)
	whole := string(begun) + string(rest)
	if err != nil || !strings.Contains(whole, `"predicted_n":300`) {
		t.Fatalf("x's answer after y's of the same id: %v, ends with %.200s", err, whole[max(0, len(whole)-200):])
	}
	f := func(who, method, uri, body string, status int, want string) {
		t.Helper()
		if got, text := s.as(who, method, uri, body); got != status || want != "*" && text != want {
			t.Errorf("%s %s by %q: %d, %.100q; expected %d, %.100q", method, uri, who, got, text, status, want)
		}
	}
	f("x", "GET", query, "", 200, whole)
	f("y", "GET", query, "", 200, string(second))
	f("z", "GET", query, "", 404, "*")
	f("", "GET", query, "", 403, "*")
	f("z", "DELETE", query, "conv_id=other", 204, "")
	f("z", "POST", "/v1/streams/lookup", ids, 200, "[]")
	f("z", "POST", "/v1/streams/lookup", bom+ids, 200, "[]")
	f("z", "POST", "/v1/streams/lookup", "[", 400, "*")
	f("x", "GET", "/v1/stream", "", 400, "*")
	f("x", "GET", "/v1/stream/"+id[:4], "", 403, "*")
	f("x", "GET", "/v1/streams", "", 403, "*")
	f("x", "OPTIONS", "/v1/stream", "", 200, "*")
	if status, text := s.as("x", "POST", "/v1/streams/lookup", ids); status != 200 || gjson.Get(text, "0.conversation_id").String() != id {
		t.Errorf("x looks its own up: %d, %s", status, text)
	}
	f("y", "DELETE", query, "", 204, "")
	f("y", "GET", query, "", 404, "*")
	f("x", "GET", query, "", 200, whole)

	if _, err := io.Copy(io.Discard, s.converse("", "nobody's", 1)); err != nil {
		t.Error(err)
	}
	if status, text := do(t, "GET", s.backend.URL+"/v1/stream?conv_id=nobody%27s", ""); status != 404 {
		t.Errorf("of a client without identity an answer is kept: %d, %s", status, text)
	}
}

// TestATenantDoesNotManageTheServer: no tenant reads or empties others' slots.
func TestATenantDoesNotManageTheServer(t *testing.T) {
	asked := ""
	b := startBackend(t, func(w http.ResponseWriter, r *http.Request) { asked = r.Method + " " + r.URL.Path })
	f := func(edit func(*configs.Config), method, path string, want bool) {
		t.Helper()
		s := startSidecar(t, b.URL, edit)
		asked = ""
		status, text := do(t, method, s.url+path, "")
		if passed := asked != ""; passed != want || passed != (status == http.StatusOK) {
			t.Errorf("%s %s: status %d, %s, the server saw %q", method, path, status, text, asked)
		}
	}
	for _, path := range []string{"/slots", "/slots/0?action=erase", "/%73lots/0", "/models/unload", "/models"} {
		f(apart, "POST", path, false)
		f(nil, "POST", path, true)
	}
	f(apart, "GET", "/slots", false)
	f(apart, "DELETE", "/models", false)
	f(apart, "GET", "/models", true)
	f(apart, "OPTIONS", "/slots", true)
	f(apart, "GET", "/slotsandmore", true)
	f(apart, "POST", "/lora-adapters", true)
}

// apart keeps tenants apart by a header.
func apart(c *configs.Config) {
	c.Defaults.Tenant = configs.Tenant{Source: "header", Name: "X-Tenant"}
}

// converse has a tenant's chat answered under an id, in n tokens, and returns the answer as
// it comes.
func (s *sharing) converse(tenant, id string, n int) io.ReadCloser {
	s.t.Helper()
	body := fmt.Sprintf(`{"messages":[{"role":"user","content":"Tell me of the sea."}],"stream":true,"timings_per_token":true,"ignore_eos":true,"max_tokens":%d}`, n)
	req, _ := http.NewRequest(http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(body))
	req.Header.Set("X-Conversation-Id", id)
	req.Header.Set("X-Tenant", tenant)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("status %d", resp.StatusCode)
	}
	return resp.Body
}

// as asks as a tenant, with a body that the server would take for parameters.
func (s *sharing) as(tenant, method, uri, body string) (status int, text string) {
	s.t.Helper()
	return do(s.t, method, s.url+uri, body, "X-Tenant", tenant, "Content-Type", "application/x-www-form-urlencoded")
}

func do(t testing.TB, method, url, body string, headers ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := freshClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
