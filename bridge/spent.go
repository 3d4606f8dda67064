package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// A server that refuses a request may leave its body unread, as older llama-servers do (401,
// and 503 while the model loads), and take it for the next one. So a connection is spent once
// a request was refused on it.

// connection takes nothing more once it is spent: net/http then asks over another.
type connection struct {
	net.Conn
	spent atomic.Bool
}

var errSpent = errors.New("a request was refused on this connection")

func (c *connection) Write(b []byte) (int, error) {
	if c.spent.Load() {
		return 0, errSpent
	}
	return c.Conn.Write(b)
}

// dialer dials connections that can be spent.
func dialer(timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &connection{Conn: c}, nil
	}
}

// tracked returns a context for one request over HTTP/1, and a function that spends its
// connection.
func tracked(ctx context.Context) (_ context.Context, spend func()) {
	var got net.Conn
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { got = info.Conn }}
	return httptrace.WithClientTrace(ctx, trace), func() {
		if t, ok := got.(*tls.Conn); ok {
			got = t.NetConn()
		}
		if c, ok := got.(*connection); ok {
			c.spent.Store(true)
		}
	}
}
