package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// upstreamBuffer bounds the head of an answer and is what one read takes.
	upstreamBuffer = 32 << 10
	// maxIdle is how many connections to the backend are kept open.
	maxIdle = 256
	// defaultKeepAlive is cpp-httplib's; the backend's Keep-Alive header
	// overrides it. keepAliveMargin is subtracted: a connection that the
	// backend is about to close must not be given a POST.
	defaultKeepAlive = 5 * time.Second
	keepAliveMargin  = 1 * time.Second
	// maxInterim bounds the 1xx answers before the real one.
	maxInterim = 16
)

// upstream keeps connections to the backend. It does not use fasthttp's
// client: an exchange here can be cut off at any moment by closing its
// connection, hands out its body as it arrives, and is repeated only where
// that is safe.
type upstream struct {
	addr, host, prefix string
	tls                *tls.Config // nil for plain HTTP
	timeout            time.Duration

	mu   sync.Mutex
	idle []*upstreamConn // last used last
}

type upstreamConn struct {
	net.Conn
	raw    syscall.RawConn
	br     *bufio.Reader
	reused bool
	until  time.Time // no longer to be reused from then on
	head   []byte    // buffer for request heads
}

// newUpstream takes the backend's http:// or https:// URL.
func newUpstream(backend string, timeout time.Duration) (*upstream, error) {
	u, err := url.Parse(backend)
	if err != nil {
		return nil, fmt.Errorf("backend URL %q: %w", backend, err)
	}
	up := &upstream{host: u.Host, addr: u.Host, prefix: strings.TrimSuffix(u.Path, "/"), timeout: timeout}
	port := "80"
	switch u.Scheme {
	case "http":
	case "https":
		port = "443"
		up.tls = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	default:
		return nil, fmt.Errorf("backend URL %q: scheme %q, expected http or https", backend, u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("backend URL %q: no host, expected http://HOST:PORT", backend)
	}
	if u.Port() == "" {
		up.addr = net.JoinHostPort(u.Hostname(), port)
	}
	return up, nil
}

// answer is the head of a response and its body as it arrives. The caller
// must end it: release after io.EOF, close in every other case.
type answer struct {
	head fasthttp.ResponseHeader
	body io.Reader // nil: no body
	// size is the length of the body, -1 where only its end will tell.
	size int
	conn *upstreamConn
	up   *upstream
	keep bool // the connection can be reused after the body
	stop func() bool
}

// errNotSent marks faults that happened before a byte went out, errNoAnswer
// those before a byte came back.
var (
	errNotSent  = errors.New("nothing was sent")
	errNoAnswer = errors.New("the connection ended before an answer")
	errNotHTTP  = errors.New("the answer's head is not valid HTTP")
	errLongHead = fmt.Errorf("the answer's head is longer than %d bytes", upstreamBuffer)
)

// do sends one request and reads the head of its answer. It ends early, with
// the connection closed, when ctx does. A request is sent a second time only
// if the first try used a kept connection and either not a byte went out or
// the method changes nothing.
func (u *upstream) do(ctx context.Context, r requestHead, in *fasthttp.RequestHeader, body []byte) (*answer, error) {
	r.host, r.bodyLen = u.host, len(body)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx) // a kept connection would take it all the same
		}
		c, err := u.get(ctx)
		if err != nil {
			return nil, err
		}
		a, err := u.exchange(ctx, c, r, in, body)
		if err == nil {
			return a, nil
		}
		_ = c.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		again := c.reused && (errors.Is(err, errNotSent) || bodyless(r.method) && errors.Is(err, errNoAnswer))
		if !again {
			return nil, err
		}
	}
}

func (u *upstream) exchange(ctx context.Context, c *upstreamConn, r requestHead, in *fasthttp.RequestHeader, body []byte) (*answer, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	c.head = appendRequestHead(c.head[:0], r, in)
	wErr := c.send(body)
	if errors.Is(wErr, errNotSent) {
		stop()
		return nil, wErr
	}
	if wErr != nil {
		// The backend may have refused the request half-way, and said why.
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
	}
	a := &answer{conn: c, up: u, stop: stop}
	err := a.readHead()
	if err != nil {
		stop()
		if wErr != nil {
			err = wErr
		}
		return nil, fmt.Errorf("exchange with the backend at %s: %w", u.addr, err)
	}
	a.keep = a.keep && wErr == nil && a.succeeded() && (len(body) == 0 || takesBody(r.method))
	a.frame(string(r.method) == "HEAD")
	return a, nil
}

// send writes head and body with one call.
func (c *upstreamConn) send(body []byte) error {
	bufs := net.Buffers{c.head, body}
	n, err := bufs.WriteTo(c.Conn)
	if err != nil && n == 0 {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	return err
}

// readHead reads the final head, past 1xx ones.
func (a *answer) readHead() error {
	a.head.DisableNormalizing()
	a.head.SetNoDefaultContentType(true)
	if _, err := a.conn.br.Peek(1); err != nil {
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	for range maxInterim {
		if err := a.head.Read(a.conn.br); err != nil {
			return unquoted(err)
		}
		if s := a.head.StatusCode(); s >= 200 {
			a.keep = !a.head.ConnectionClose()
			return nil
		}
	}
	return fmt.Errorf("more than %d interim answers", maxInterim)
}

// unquoted is why a head could not be read, without what fasthttp quotes of it: where it is
// none, that may be an answer's text.
func unquoted(err error) error {
	var broke *net.OpError
	var large *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &large):
		return errLongHead
	case errors.As(err, &broke):
		return broke
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errNotHTTP
}

// succeeded reports whether the backend did what was asked. Where it refuses, older
// llama-servers leave the request's body unread (401, 503 while the model loads), or the rest
// of its head (400), and take it for the next request: its answer would be the next client's.
func (a *answer) succeeded() bool {
	s := a.head.StatusCode()
	return s >= 200 && s < 300
}

// frame finds where the body ends.
func (a *answer) frame(headRequest bool) {
	a.size = a.head.ContentLength()
	s := a.head.StatusCode()
	switch {
	case headRequest || s == fasthttp.StatusNoContent || s == fasthttp.StatusNotModified:
	case a.size >= 0:
		a.body = &exactReader{r: a.conn.br, left: a.size}
	case a.size == -1:
		// llama-server closes the connection after every streamed answer, without
		// announcing it: the next request must not meet that.
		a.keep = false
		a.body = httputil.NewChunkedReader(a.conn.br)
	default: // until the backend closes
		a.size, a.keep, a.body = -1, false, a.conn.br
	}
}

// release gives the connection back after the whole body was read.
func (a *answer) release() {
	if !a.stop() || !a.keep {
		_ = a.conn.Close()
		return
	}
	a.up.put(a.conn, keepAlive(&a.head))
}

// close cuts the exchange off.
func (a *answer) close() {
	a.stop()
	_ = a.conn.Close()
}

// keepAlive is how long the backend keeps the connection open for reuse.
func keepAlive(h *fasthttp.ResponseHeader) time.Duration {
	for k, v := range h.All() {
		if !foldEqual(k, "Keep-Alive") {
			continue
		}
		for part := range strings.SplitSeq(string(v), ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			if n, err := strconv.Atoi(value); err == nil && strings.EqualFold(name, "timeout") {
				return time.Duration(n) * time.Second
			}
			if name == "max" && value == "0" {
				return 0
			}
		}
	}
	return defaultKeepAlive
}

// get takes the connection used last, if it is still good, or dials.
func (u *upstream) get(ctx context.Context) (*upstreamConn, error) {
	for {
		c := u.pop()
		if c == nil {
			return u.dial(ctx)
		}
		if time.Now().Before(c.until) && c.br.Buffered() == 0 && !stirred(c.raw) {
			c.reused = true
			return c, nil
		}
		_ = c.Close()
	}
}

func (u *upstream) pop() *upstreamConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := len(u.idle)
	if n == 0 {
		return nil
	}
	c := u.idle[n-1]
	u.idle = u.idle[:n-1]
	return c
}

func (u *upstream) put(c *upstreamConn, alive time.Duration) {
	now := time.Now()
	c.until = now.Add(alive - keepAliveMargin)
	u.mu.Lock()
	defer u.mu.Unlock()
	// The oldest come first; what has expired is of no more use.
	for len(u.idle) > 0 && (now.After(u.idle[0].until) || len(u.idle) >= maxIdle) {
		_ = u.idle[0].Close()
		u.idle = u.idle[1:]
	}
	u.idle = append(u.idle, c)
}

func (u *upstream) dial(ctx context.Context) (*upstreamConn, error) {
	d := net.Dialer{Timeout: u.timeout}
	conn, err := d.DialContext(ctx, "tcp", u.addr)
	if err != nil {
		return nil, fmt.Errorf("dial the backend: %w", err)
	}
	raw := rawConn(conn)
	if u.tls != nil {
		t := tls.Client(conn, u.tls)
		tlsCtx, cancel := context.WithTimeout(ctx, u.timeout)
		defer cancel()
		if err := t.HandshakeContext(tlsCtx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("TLS with the backend at %s: %w", u.addr, err)
		}
		conn = t
	}
	return &upstreamConn{Conn: conn, raw: raw, br: bufio.NewReaderSize(conn, upstreamBuffer)}, nil
}

// closeIdle closes the kept connections.
func (u *upstream) closeIdle() {
	for c := u.pop(); c != nil; c = u.pop() {
		_ = c.Close()
	}
}

// exactReader reads a body of known length; an early end is an error.
type exactReader struct {
	r    io.Reader
	left int
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if len(p) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= n
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
