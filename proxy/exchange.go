package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

// exchange is one request on its way through, from its arrival to the end of
// its answer. It outlives the RequestCtx, so it holds copies.
//
// It is the body stream that fasthttp sends to the client (HTTP/1.0: unframed):
// each Read passes on what the backend has sent so far, and Close, which
// fasthttp always calls, ends the exchange.
type exchange struct {
	server   *Server
	ctx      context.Context
	cancel   context.CancelCauseFunc
	conn     net.Conn // the client's
	hangup   *hangup
	start    time.Time // the request's arrival
	method   string
	path     string
	endpoint Endpoint // "" for what passes through
	req      *request
	decision *decision
	passed   func(outcome)     // is called when it is over; nil where it is in a book or takes no slot
	renamed  *strings.Replacer // turns the backend's names of conversations into the client's; nil where there are none

	answer    *answer
	tally     *tally // nil where nothing is counted
	status    int
	bytesIn   int
	bytesOut  int64
	firstByte time.Time
	complete  bool // the backend's answer was read to its end
	err       error
	ended     bool
}

var (
	errClientGone = errors.New("the client hung up")
	errDraining   = errors.New("shutting down")
	errPanic      = errors.New("internal fault")
)

// prepare has the sharer decide on a generation request and returns the body
// to forward. Errors are a body that decompresses beyond the limit and, where tenants are
// kept apart, one that cannot be read, so that nobody could say what the backend would make
// of it, or a request that might find another tenant's prompt.
func (x *exchange) prepare(ctx *fasthttp.RequestCtx, cfg *configs.Config, raw []byte, head *requestHead) ([]byte, error) {
	h := &ctx.Request.Header
	body, off := raw, ""
	encoding, n := header(h, "Content-Encoding")
	encoded := n > 0 && !strings.EqualFold(encoding, "identity")
	if encoded {
		var err error
		body, err = decode(raw, encoding, cfg.Limits.Body)
		if errors.Is(err, errBodyTooLarge) {
			return nil, err
		}
		if err != nil || n > 1 {
			body, off = raw, offEncoding
		}
	}
	body = withoutBOM(body)
	req := newRequest(x, cfg, h, body, off)
	x.req = req
	if req.Apart && req.unread() {
		return nil, fmt.Errorf("%w: %s", errUnreadable, req.Off)
	}
	if req.Apart {
		head.conversation = x.server.conversations.of(req.Tenant, h)
	}
	x.decision = x.server.sharer.prepare(x.ctx, req)
	switch why := x.decision.unsafe; why {
	case "":
	case invalidKey:
		return nil, errKey
	default:
		return nil, fmt.Errorf("%w: %s", errNotApart, why)
	}
	if x.decision.isUnpinned && x.server.sharer.shares() {
		head.conversation = "" // it could go on in a slot that the book takes for another's
	}
	x.tally = newTally()
	untouched := x.decision.State == StateCold && bytes.Equal(x.decision.Body, body)
	if untouched && (req.Off != "" || !encoded) {
		return raw, nil // as it would have gone without the sidecar
	}
	head.decoded = encoded && off == ""
	return x.decision.Body, nil
}

// forward sends the request on and hands its answer's body to fasthttp.
func (x *exchange) forward(ctx *fasthttp.RequestCtx, head requestHead, body []byte) {
	switch {
	case x.decision != nil:
		x.decision.forwarded()
	case mayTakeSlot(x.method, x.path):
		x.passed = x.server.sharer.passes(x.server.base, head.apart)
	}
	a, err := x.send(&ctx.Request.Header, head, body)
	if err == nil && x.renamed != nil {
		if err = a.rename(x.renamed, x.server.config.Load().Limits.Body); err != nil {
			a.close()
		}
	}
	if err != nil {
		x.fail(err)
		if errors.Is(x.err, errDraining) {
			x.refuse(ctx, fasthttp.StatusServiceUnavailable, "unavailable_error", "the sidecar is shutting down")
			return
		}
		x.refuse(ctx, fasthttp.StatusBadGateway, "unavailable_error", "the backend could not be reached or broke off")
		return
	}
	x.answer = a
	x.status = a.head.StatusCode()
	copyResponseHead(&ctx.Response.Header, &a.head)
	if d := x.decision; d != nil {
		ctx.Response.Header.Set(controlHeader, d.Header)
	}
	x.respond(ctx)
}

// send has the backend answer, and the sharer know of what may set scales.
func (x *exchange) send(h *fasthttp.RequestHeader, head requestHead, body []byte) (a *answer, err error) {
	if setsScales(x.method, x.path) {
		done := x.server.sharer.setting(x.ctx)
		defer func() { done(a == nil || a.head.StatusCode() == fasthttp.StatusOK) }()
	}
	return x.server.upstream.do(x.ctx, head, h, body)
}

// respond sets the answer's body.
func (x *exchange) respond(ctx *fasthttp.RequestCtx) {
	a := x.answer
	switch {
	case a.body == nil:
		x.complete = true
		if ctx.IsHead() {
			ctx.Response.SkipBody = true
			ctx.Response.Header.SetContentLength(a.size)
		}
		x.end()
	case a.size < 0 && !ctx.Request.Header.IsHTTP11():
		x.unframed(ctx)
	default:
		// A stream's head goes out before there is anything to stream.
		ctx.Response.ImmediateHeaderFlush = a.size < 0
		ctx.Response.SetBodyStream(x, a.size)
	}
}

// refuse answers in the backend's own form of an error, and ends the exchange. To a client that
// left no answer comes.
func (x *exchange) refuse(ctx *fasthttp.RequestCtx, status int, kind, message string) {
	x.status = status
	if errors.Is(context.Cause(x.ctx), errClientGone) {
		x.status = 0
		x.fail(errClientGone)
	}
	writeError(ctx, status, kind, message)
	if d := x.decision; d != nil {
		ctx.Response.Header.Set(controlHeader, d.Header)
	}
	x.end()
}

// refuseFor refuses a request for what is wrong with its body, or where tenants are kept apart.
func (x *exchange) refuseFor(ctx *fasthttp.RequestCtx, err error, limit int64) {
	switch {
	case errors.Is(err, errUnreadable):
		x.refuse(ctx, fasthttp.StatusBadRequest, "invalid_request_error", err.Error())
	case errors.Is(err, errForbidden):
		x.refuse(ctx, fasthttp.StatusForbidden, "permission_error", err.Error())
	case errors.Is(err, errKey):
		x.refuse(ctx, fasthttp.StatusUnauthorized, "authentication_error", invalidKey)
	case errors.Is(err, errNotApart):
		x.refuse(ctx, fasthttp.StatusServiceUnavailable, "unavailable_error", err.Error())
	case errors.Is(err, errBodyTooLarge):
		ctx.SetConnectionClose()
		x.refuse(ctx, fasthttp.StatusRequestEntityTooLarge, "invalid_request_error",
			fmt.Sprintf("the body exceeds the sidecar's limit of %d bytes (limits.body_bytes)", limit))
		lingering(ctx)
	default:
		x.fail(errClientGone)
		ctx.SetConnectionClose()
		x.refuse(ctx, fasthttp.StatusBadRequest, "invalid_request_error", "the body could not be read to its end")
	}
}

func (x *exchange) panicked(r any) {
	x.server.metrics.Panics.Inc()
	x.server.log.Error().Str("panic", fmt.Sprint(r)).Bytes("stack", debug.Stack()).Msg("recovered")
	x.fail(errPanic)
}
