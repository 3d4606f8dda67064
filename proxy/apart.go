package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

// Why a request is not sent where tenants are kept apart.
var (
	// errForbidden: it could reach what is another tenant's.
	errForbidden = errors.New("this sidecar keeps tenants apart")
	// errUnreadable: what its body asks for cannot be told.
	errUnreadable = errors.New("this sidecar keeps tenants apart and must be able to read the body")
	// errNotApart: it cannot be sent so that no other tenant notices.
	errNotApart = errors.New("this sidecar keeps tenants apart, and cannot for this request now")
	// errKey: the backend does not take the client's key.
	errKey = errors.New("the backend does not take the key")
)

// passApart prepares a request that passes through, where tenants are kept apart: it must not
// reach what the backend keeps of others.
func (x *exchange) passApart(ctx *fasthttp.RequestCtx, cfg *configs.Config, body []byte, head *requestHead) ([]byte, error) {
	if ctx.IsOptions() {
		return body, nil // a browser that asks whether it may ask
	}
	if manages(x.method, x.path) {
		return nil, fmt.Errorf("%w: %s %s reaches what is others'; whoever runs the server may ask it directly", errForbidden, x.method, x.path)
	}
	switch {
	case under(x.path, streamPath), under(x.path, streamsPath):
		_, policy := route(cfg, x.path, "", &ctx.Request.Header)
		return x.resume(ctx, tenant(policy.Tenant, &ctx.Request.Header), head, body)
	case mayTakeSlot(x.method, x.path):
		return body, x.admitted(ctx, cfg)
	}
	return body, nil
}

// admitted returns an error where the backend would not take the client's key. Whoever sends a
// request that may take any slot, and hangs up before it is refused, would end sharing for all
// until the backend is known to be done with it.
func (x *exchange) admitted(ctx *fasthttp.RequestCtx, cfg *configs.Config) error {
	wait, cancel := context.WithTimeout(x.ctx, cfg.Limits.SlotWait)
	defer cancel()
	if x.server.sharer.turnsAway(wait, authorization(&ctx.Request.Header)) {
		return errKey
	}
	return nil
}

// manages reports whether llama-server takes the request for one of whoever runs it: by
// /slots it tells what all slots hold, saves, loads and empties them; by its router's /models
// it ends and deletes models with all that they are at.
func manages(method, path string) bool {
	reads := method == fasthttp.MethodGet || method == fasthttp.MethodHead
	return under(path, "/slots") || under(path, "/models") && !reads
}

// under reports whether a path is dir or lies below it.
func under(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/')
}
