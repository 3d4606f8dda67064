package proxy

import (
	"bufio"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

func requestHeader(t *testing.T, lines string) *fasthttp.RequestHeader {
	t.Helper()
	var r fasthttp.Request
	r.Header.DisableNormalizing()
	if err := r.Header.Read(reader("POST / HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n")); err != nil {
		t.Fatal(err)
	}
	return &r.Header
}

func TestTenant(t *testing.T) {
	key := configs.Tenant{Source: "api_key"}
	org := configs.Tenant{Source: "header", Name: "X-Org"}
	get := func(c configs.Tenant, lines string) string { return tenant(c, requestHeader(t, lines)) }
	same := func(a, b string) {
		t.Helper()
		if a == "" || a != b {
			t.Errorf("%q and %q are not one tenant", a, b)
		}
	}
	none := func(c configs.Tenant, lines string) {
		t.Helper()
		if got := get(c, lines); got != "" {
			t.Errorf("%+v with %q gives an identity", c, lines)
		}
	}
	same(get(key, "Authorization: Bearer k\r\n"), get(key, "x-api-key: k\r\n"))
	same(get(key, "authorization: bearer k\r\nX-Api-Key: k\r\n"), get(key, "X-Api-Key: k\r\n"))
	same(get(org, "x-org: a\r\n"), get(org, "X-ORG: a\r\n"))
	same(get(configs.Tenant{Source: "shared", Name: "s"}, ""), get(configs.Tenant{Source: "shared", Name: "s"}, "X-Org: a\r\n"))
	none(key, "")
	none(key, "Authorization: Basic k\r\n")
	none(key, "Authorization: Bearer k\r\nX-Api-Key: other\r\n")
	none(key, "Authorization: Bearer k\r\nAuthorization: Bearer j\r\n")
	none(org, "")
	none(org, "X-Org:\r\n")
	none(org, "X-Org: a\r\nX-Org: b\r\n")
	none(configs.Tenant{}, "X-Org: a\r\n")

	all := map[string]string{}
	for name, d := range map[string]string{
		"key a": get(key, "X-Api-Key: a\r\n"), "key b": get(key, "X-Api-Key: b\r\n"),
		"org a":    get(org, "X-Org: a\r\n"),
		"other a":  get(configs.Tenant{Source: "header", Name: "X-Other"}, "X-Other: a\r\n"),
		"shared a": get(configs.Tenant{Source: "shared", Name: "a"}, ""),
	} {
		if was, ok := all[d]; ok {
			t.Errorf("%s and %s are one tenant", name, was)
		}
		all[d] = name
	}
}

func TestRoute(t *testing.T) {
	cfg := configs.Default()
	cfg.Routes = []configs.Route{
		{Name: "infill", Match: configs.Match{Path: "/infill"}},
		{Name: "team", Match: configs.Match{Path: "/v1/*", Model: "qwen*", Headers: map[string]string{"X-Team": "a"}}},
		{Name: "model", Match: configs.Match{Model: "qwen*"}},
		{Name: "org", Match: configs.Match{Model: "*/mistral-?B"}},
		{Name: "any of it", Match: configs.Match{Model: "*mistral*"}},
	}
	f := func(path, model, lines, want string) {
		t.Helper()
		if got, _ := route(cfg, path, model, requestHeader(t, lines)); got != want {
			t.Errorf("%s %s %q goes to %s, expected %s", path, model, lines, got, want)
		}
	}
	f("/infill", "qwen3", "", "infill")
	f("/v1/messages", "qwen3", "x-team: a\r\n", "team")
	f("/v1/messages", "qwen3", "X-Team: b\r\n", "model")
	f("/v1/messages", "qwen3", "X-Team: a\r\nX-Team: a\r\n", "model")
	f("/v1/messages", "llama", "X-Team: a\r\n", defaultRoute)
	f("/completion", "", "", defaultRoute)
	f("/completion", "a/mistral-7B", "", "org")
	f("/completion", "a/b/mistral-7B", "", "org")
	f("/completion", "org/mistral-24B", "", "any of it")
	f("/v1/a/b", "llama", "X-Team: a\r\n", defaultRoute)
	f("/v1/a/b", "qwen", "X-Team: a\r\n", "model") // in a path * stops at slashes
}

func reader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }
