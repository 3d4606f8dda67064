package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/tidwall/gjson"
	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

const (
	// readBuffer bounds the head of a request.
	readBuffer = 64 << 10
	// maxLoggedPath keeps log lines short.
	maxLoggedPath = 200
	// abortTime is what requests get to end in once draining was given up.
	abortTime = time.Second
)

// emptyHeader is the client's part of requests that no client sent.
var emptyHeader fasthttp.RequestHeader

// Server is the sidecar's HTTP side. Make it with New.
type Server struct {
	config   atomic.Pointer[configs.Config]
	log      zerolog.Logger
	metrics  *Metrics
	upstream *upstream
	sharer   *Sharer
	watcher  watcher

	http      *fasthttp.Server
	adminHTTP *http.Server
	draining  atomic.Bool
	// base ends when requests still running must be cut off.
	base context.Context
	stop context.CancelCauseFunc
	// settling are the exchanges whose outcome is being reported.
	settling sync.WaitGroup
}

// New makes a server for a complete, valid configuration. The caller brings the
// listeners, and the backend may come up later. Without a slot directory nothing
// is shared.
func New(cfg *configs.Config, log zerolog.Logger) (*Server, error) {
	return newServer(cfg, log, false)
}

// NewMeasured is New for a sidecar that is only measured: of the references in the slot
// directory it uses, evicts and forgets those alone that it made itself.
func NewMeasured(cfg *configs.Config, log zerolog.Logger) (*Server, error) {
	return newServer(cfg, log, true)
}

func newServer(cfg *configs.Config, log zerolog.Logger, measured bool) (*Server, error) {
	up, err := newUpstream(cfg.Backend.URL, cfg.Backend.Connect)
	if err != nil {
		return nil, err
	}
	s := &Server{log: log, upstream: up, metrics: NewMetrics()}
	if s.sharer, err = openSharer(cfg, log, s.metrics, measured); err != nil {
		return nil, err
	}
	s.config.Store(cfg)
	s.base, s.stop = context.WithCancelCause(context.Background())
	s.http = s.newHTTP(cfg)
	s.adminHTTP = &http.Server{Handler: s.admin(), ReadHeaderTimeout: cfg.Limits.Idle}
	return s, nil
}

// Sharer decides on the server's requests. It is closed by Shutdown.
func (s *Server) Sharer() *Sharer { return s.sharer }

func (s *Server) newHTTP(cfg *configs.Config) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:            s.handle,
		ErrorHandler:       refuse,
		Concurrency:        cfg.Limits.Connections,
		ReadBufferSize:     readBuffer,
		ReadTimeout:        cfg.Limits.Idle,
		IdleTimeout:        cfg.Limits.Idle,
		MaxRequestBodySize: 1 << 20, // only what is read ahead: readBody sets the limit
		TCPKeepalive:       true,
		CloseOnShutdown:    true,
		StreamRequestBody:  true,
		// Bodies and headers pass as they are.
		DisablePreParseMultipartForm:  true,
		DisableHeaderNamesNormalizing: true,
		NoDefaultServerHeader:         true,
		NoDefaultDate:                 true,
		NoDefaultContentType:          true,
		SecureErrorLogMessage:         true,
		Logger:                        quiet{s.log},
	}
}

// quiet puts fasthttp's own complaints, about broken requests, in the log at
// a level where they can be found but do not flood.
type quiet struct{ log zerolog.Logger }

func (q quiet) Printf(format string, args ...any) { q.log.Debug().Msgf(format, args...) }

// Serve answers requests until Shutdown. Both listeners are closed then. A
// nil admin listener leaves the admin side out.
func (s *Server) Serve(ln, admin net.Listener) error {
	errs := make(chan error, 2)
	n := 1
	go func() { errs <- s.http.Serve(ln) }()
	if admin != nil {
		n++
		go func() {
			err := s.adminHTTP.Serve(admin)
			if errors.Is(err, http.ErrServerClosed) {
				err = nil
			}
			errs <- err
		}()
	}
	for range n {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// Reload takes a new configuration for the requests to come: routes, and of the limits
// those of bodies. Addresses, connections and everything about the backend, the index and
// the store stay as they were at the start.
func (s *Server) Reload(cfg *configs.Config) {
	s.config.Store(cfg)
	s.metrics.Reloads.WithLabelValues("ok").Inc()
	s.metrics.ReloadOK.Set(1)
	s.metrics.ReloadTime.SetToCurrentTime()
}

// ReloadFailed counts a configuration that could not be taken; the last good
// one stays.
func (s *Server) ReloadFailed() {
	s.metrics.Reloads.WithLabelValues("error").Inc()
	s.metrics.ReloadOK.Set(0)
}

// Shutdown takes no more connections and waits for the requests in flight.
// When ctx ends first, they are cut off. The admin side stays up until then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	err := s.http.ShutdownWithContext(ctx)
	s.stop(errDraining)
	if err != nil {
		s.watcher.cut(abortTime)
	}
	s.settling.Wait()
	s.upstream.closeIdle()
	_ = s.adminHTTP.Close()
	return errors.Join(err, s.sharer.Close())
}

// handle serves one request. It returns before the answer's body is sent;
// fasthttp then reads it from the exchange.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	x := s.begin(ctx)
	defer x.allowWrite(ctx)
	defer func() {
		if r := recover(); r != nil {
			x.panicked(r)
			ctx.Response.Reset()
			x.refuse(ctx, fasthttp.StatusInternalServerError, "server_error", "the sidecar failed on this request")
		}
	}()
	cfg := s.config.Load()
	x.stall = cfg.Limits.Idle
	if ambiguous(ctx.RequestURI()) {
		x.refuse(ctx, fasthttp.StatusBadRequest, "invalid_request_error", "the path has %u, which is no percent-encoding (RFC 3986)")
		return
	}
	if ctx.IsConnect() {
		x.refuse(ctx, fasthttp.StatusMethodNotAllowed, "invalid_request_error", "CONNECT is not supported")
		return
	}
	body, err := readBody(ctx, cfg.Limits.Body, cfg.Limits.Idle)
	x.bytesIn = len(body)
	if err != nil {
		x.refuseBody(ctx, err, cfg.Limits.Body)
		return
	}
	x.watch = s.watcher.add(ctx.Conn(), func() { x.cancel(errClientGone) })
	head := requestHead{method: ctx.Method(), uri: s.uri(ctx), client: ctx.RemoteAddr()}
	if x.endpoint != "" {
		if body, err = x.prepare(ctx, cfg, body, &head); err != nil {
			x.refuseBody(ctx, err, cfg.Limits.Body)
			return
		}
	}
	x.forward(ctx, head, body)
}

func (s *Server) begin(ctx *fasthttp.RequestCtx) *exchange {
	x := &exchange{server: s, start: time.Now(), method: string(ctx.Method()), path: string(ctx.Path()), conn: ctx.Conn()}
	x.ctx, x.cancel = context.WithCancelCause(s.base)
	if ctx.IsPost() {
		x.endpoint = endpoints[x.path]
	}
	if len(x.path) > maxLoggedPath {
		x.path = x.path[:maxLoggedPath]
	}
	s.metrics.InFlight.Inc()
	return x
}

// ambiguous reports whether a path has %uXXXX, which the backend decodes and nobody else:
// it would take it for a path that the sidecar does not see.
func ambiguous(uri []byte) bool {
	path, _, _ := bytes.Cut(uri, []byte("?"))
	return bytes.Contains(path, []byte("%u")) || bytes.Contains(path, []byte("%U"))
}

// uri is the request's target for the backend, as the client wrote it.
func (s *Server) uri(ctx *fasthttp.RequestCtx) []byte {
	uri := ctx.Request.Header.RequestURI()
	if len(uri) == 0 || uri[0] != '/' && !bytes.Equal(uri, []byte("*")) {
		uri = ctx.URI().PathOriginal() // absolute form
		if q := ctx.URI().QueryString(); len(q) > 0 {
			uri = append(append(bytes.Clone(uri), '?'), q...)
		}
		if len(uri) == 0 {
			uri = []byte("/")
		}
	}
	if s.upstream.prefix == "" {
		return uri
	}
	return append([]byte(s.upstream.prefix), uri...)
}

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
	g := newGeneration(x, cfg, h, body, off)
	x.gen = g
	if g.Apart && g.unread() {
		return nil, fmt.Errorf("%w: %s", errUnreadable, g.Off)
	}
	x.decision = x.server.sharer.Prepare(x.ctx, g)
	if why := x.decision.unsafe; why != "" {
		return nil, fmt.Errorf("%w: %s", errNotApart, why)
	}
	x.tally = newTally()
	if encoded && g.Off != "" && x.decision.State == StateCold && sameBytes(x.decision.Body, body) {
		return raw, nil // untouched: as it would have gone without the sidecar
	}
	head.decoded = encoded && off == ""
	return x.decision.Body, nil
}

// newGeneration gathers what the sharer needs to know of a request.
func newGeneration(x *exchange, cfg *configs.Config, h *fasthttp.RequestHeader, body []byte, off string) *Generation {
	g := &Generation{ID: newID(), Path: x.path, Body: body, Off: off}
	g.Authorization = authorization(h)
	g.Apart = cfg.Apart()
	var doc gjson.Result
	if off == "" {
		g.Off = unreadable(body)
	}
	if g.Off == "" {
		doc = gjson.ParseBytes(body)
	}
	g.Route, g.Policy = route(cfg, x.path, stringOf(doc.Get("model"), ""), h)
	g.Tenant, g.Adapters = tenant(g.Policy.Tenant, h), adaptersOf(doc)
	g.adapted()
	wish, _ := header(h, controlHeader)
	declined := strings.EqualFold(strings.TrimSpace(wish), "off")
	g.Own = declined || g.Policy.Reuse != configs.ReuseFuzzy
	switch {
	case g.Off != "":
	case g.Policy.Reuse == configs.ReuseOff:
		g.Off = offByRoute
	case declined:
		g.Off = offByHeader
	default:
		if g.Off = offBody(doc); g.Off == "" {
			g.Prompt, g.Off = readPrompt(x.endpoint, doc)
		}
	}
	g.Scattered = g.Apart && scattered(x.endpoint, objectOf(doc))
	return g
}

// forward sends the request on and hands its answer's body to fasthttp.
func (x *exchange) forward(ctx *fasthttp.RequestCtx, head requestHead, body []byte) {
	x.sent = time.Now()
	if x.decision != nil {
		x.decision.Forwarded()
	}
	heeded := func(bool) {}
	if setsScales(x.method, x.path) {
		heeded = x.server.sharer.setting()
	}
	a, err := x.server.upstream.do(x.ctx, head, &ctx.Request.Header, body)
	heeded(err != nil || a.head.StatusCode() == fasthttp.StatusOK)
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
	if d := x.decision; d != nil && d.Header != "" {
		ctx.Response.Header.Set(controlHeader, d.Header)
	}
	x.respond(ctx)
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
		// HTTP/1.0 knows no chunks: the whole body, then its length.
		all, err := io.ReadAll(x)
		x.stall = 0 // it is sent in one go, however long that takes, and holds no slot
		if err != nil {
			x.refuse(ctx, fasthttp.StatusBadGateway, "unavailable_error", "the backend broke off")
			return
		}
		ctx.Response.SetBodyRaw(all)
		x.end()
	default:
		// A stream's head goes out before there is anything to stream.
		ctx.Response.ImmediateHeaderFlush = a.size < 0
		ctx.Response.SetBodyStream(x, a.size)
	}
}

// refuse answers in the backend's own form of an error, and ends the exchange.
func (x *exchange) refuse(ctx *fasthttp.RequestCtx, status int, kind, message string) {
	x.status = status
	writeError(ctx, status, kind, message)
	if d := x.decision; d != nil && d.Header != "" {
		ctx.Response.Header.Set(controlHeader, d.Header)
	}
	x.end()
}

func (x *exchange) refuseBody(ctx *fasthttp.RequestCtx, err error, limit int64) {
	if errors.Is(err, errUnreadable) {
		x.refuse(ctx, fasthttp.StatusBadRequest, "invalid_request_error", err.Error())
		return
	}
	if errors.Is(err, errNotApart) {
		x.refuse(ctx, fasthttp.StatusServiceUnavailable, "unavailable_error", err.Error())
		return
	}
	if !errors.Is(err, errBodyTooLarge) {
		x.fail(errClientGone)
		ctx.SetConnectionClose()
		x.refuse(ctx, fasthttp.StatusBadRequest, "invalid_request_error", "the body could not be read to its end")
		return
	}
	ctx.SetConnectionClose()
	x.refuse(ctx, fasthttp.StatusRequestEntityTooLarge, "invalid_request_error",
		fmt.Sprintf("the body exceeds the sidecar's limit of %d bytes (limits.body_bytes)", limit))
	lingering(ctx)
}

// refuse answers what is not HTTP enough to become a request.
func refuse(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var netErr net.Error
	switch {
	case errors.As(err, &small):
		writeError(ctx, fasthttp.StatusRequestHeaderFieldsTooLarge, "invalid_request_error",
			fmt.Sprintf("the request's head exceeds %d bytes", readBuffer))
	case errors.As(err, &netErr) && netErr.Timeout():
		writeError(ctx, fasthttp.StatusRequestTimeout, "invalid_request_error", "the request did not arrive in time")
	default:
		writeError(ctx, fasthttp.StatusBadRequest, "invalid_request_error", "the request is not valid HTTP")
	}
}

// writeError writes the error form of the OpenAI API and of llama-server.
func writeError(ctx *fasthttp.RequestCtx, status int, kind, message string) {
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json; charset=utf-8")
	ctx.SetBodyString(`{"error":{"code":` + fmt.Sprint(status) + `,"message":` + quote(message) + `,"type":` + quote(kind) + `}}`)
}

func sameBytes(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
