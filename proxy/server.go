package proxy

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
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

// Server is the sidecar's HTTP side. Make it with New.
type Server struct {
	config   atomic.Pointer[configs.Config]
	log      zerolog.Logger
	metrics  *Metrics
	upstream *upstream
	sharer   *Sharer
	hangups  hangups
	// conversations names those of tenants that are kept apart.
	conversations conversations

	http      *fasthttp.Server
	adminHTTP *http.Server
	draining  atomic.Bool
	// base ends when requests still running must be cut off.
	base context.Context
	stop context.CancelCauseFunc
	// idle is limits.idle_timeout of the start: connections go by it from then on.
	idle time.Duration
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
	s := &Server{log: log, upstream: up, metrics: NewMetrics(), idle: cfg.Limits.Idle}
	if s.sharer, err = openSharer(cfg, log, s.metrics, measured); err != nil {
		return nil, err
	}
	s.conversations = newConversations(s.sharer.secret)
	s.config.Store(cfg)
	s.base, s.stop = context.WithCancelCause(context.Background())
	s.http = s.newHTTP(cfg)
	s.adminHTTP = &http.Server{Handler: s.admin(), ReadTimeout: s.idle, WriteTimeout: s.idle, IdleTimeout: s.idle}
	return s, nil
}

// Sharer decides on the server's requests. It is closed by Shutdown.
func (s *Server) Sharer() *Sharer { return s.sharer }

func (s *Server) newHTTP(cfg *configs.Config) *fasthttp.Server {
	return &fasthttp.Server{
		Handler:            s.handle,
		ErrorHandler:       refuse,
		Concurrency:        cfg.Limits.Connections,
		ConnState:          s.metrics.connection,
		ReadBufferSize:     readBuffer,
		ReadTimeout:        s.idle,
		IdleTimeout:        s.idle,
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

// Printf tells what kind of complaint it is, and what the network said. The rest may quote
// headers, targets and bodies.
func (q quiet) Printf(format string, args ...any) {
	if strings.HasPrefix(format, atConcurrency) {
		q.log.Warn().Msg("connections are refused: limits.connections are open")
		return
	}
	what, _, _ := strings.Cut(format, "%")
	e := q.log.Debug().Str("complaint", strings.TrimSpace(what))
	for _, a := range args {
		var broke *net.OpError
		if err, ok := a.(error); ok && errors.As(err, &broke) {
			e = e.Err(broke)
		}
	}
	e.Msg("connection not served to its end")
}

// atConcurrency is how fasthttp's complaint begins, once a minute at most, when it answers
// connections with 503 by itself.
const atConcurrency = "The incoming connection cannot be served"

// Serve answers requests until Shutdown. Both listeners are closed then. A
// nil admin listener leaves the admin side out.
func (s *Server) Serve(ln, admin net.Listener) error {
	errs := make(chan error, 2)
	n := 1
	go func() { errs <- s.http.Serve(&patientListener{Listener: ln, log: s.log}) }()
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
		s.hangups.cut(abortTime)
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
	if status, why := unfit(&ctx.Request.Header); why != "" {
		x.refuse(ctx, status, "invalid_request_error", why)
		return
	}
	body, err := readBody(ctx, cfg.Limits.Body, s.idle)
	x.bytesIn = len(body)
	if err != nil {
		x.refuseFor(ctx, err, cfg.Limits.Body)
		return
	}
	x.hangup = s.hangups.add(ctx.Conn(), func() { x.cancel(errClientGone) })
	head := requestHead{method: ctx.Method(), uri: s.uri(ctx), client: ctx.RemoteAddr(), apart: cfg.Apart()}
	switch {
	case x.endpoint != "":
		body, err = x.prepare(ctx, cfg, body, &head)
	case head.apart:
		body, err = x.passApart(ctx, cfg, body, &head)
	}
	if err != nil {
		x.refuseFor(ctx, err, cfg.Limits.Body)
		return
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

// writeError writes the error form of the OpenAI API and of llama-server, and like it lets
// pages of any origin read it.
func writeError(ctx *fasthttp.RequestCtx, status int, kind, message string) {
	if origin, n := header(&ctx.Request.Header, "Origin"); n > 0 {
		ctx.Response.Header.Set("Access-Control-Allow-Origin", origin)
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json; charset=utf-8")
	ctx.SetBodyString(`{"error":{"code":` + fmt.Sprint(status) + `,"message":` + quote(message) + `,"type":` + quote(kind) + `}}`)
}

func newID() string { return hex.EncodeToString(randomBytes(8)) }
