package proxy

import (
	"path"

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
	if !fits(m.Path, urlPath) || !fits(m.Model, model) {
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

// fits reports whether s matches a path.Match pattern; an empty one fits all.
// Patterns were checked when the configuration was loaded.
func fits(pattern, s string) bool {
	if pattern == "" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
