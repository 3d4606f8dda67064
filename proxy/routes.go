package proxy

import (
	"path"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

// defaultRoute names the settings of a request that no route matches.
const defaultRoute = "default"

// route returns the first route that matches, or the defaults. urlPath is
// decoded; model is the `model` of the body, or "".
func route(cfg *configs.Config, urlPath, model string, h *fasthttp.RequestHeader) (string, configs.Policy) {
	for i := range cfg.Routes {
		r := &cfg.Routes[i]
		if matches(&r.Match, urlPath, model, h) {
			return r.Name, r.Policy
		}
	}
	return defaultRoute, cfg.Defaults
}

func matches(m *configs.Match, urlPath, model string, h *fasthttp.RequestHeader) bool {
	if !fits(m.Path, urlPath) || !fits(slashless(m.Model), slashless(model)) {
		return false
	}
	for name, want := range m.Headers {
		// A header given twice could mean one thing here and another to the
		// backend, so it fits nothing.
		if got, n := header(h, name); n != 1 || got != want {
			return false
		}
	}
	return true
}

// slashless is a model's name or pattern in which * stands for slashes too, as in
// org/qwen3: path.Match stops at them.
func slashless(model string) string { return strings.ReplaceAll(model, "/", "\x00") }

// fits reports whether s matches a path.Match pattern; an empty one fits all.
// Patterns were checked when the configuration was loaded.
func fits(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
