package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// upstreamBuffer bounds the head of an answer and is what one read takes.
const upstreamBuffer = 32 << 10

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
		a, err := u.try(ctx, c, r, in, body)
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

// try sends the request over c and reads the head of its answer.
func (u *upstream) try(ctx context.Context, c *upstreamConn, r requestHead, in *fasthttp.RequestHeader, body []byte) (*answer, error) {
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
