package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

const (
	// maxIdle is how many connections to the backend are kept open.
	maxIdle = 256
	// defaultKeepAlive is cpp-httplib's; the backend's Keep-Alive header
	// overrides it. keepAliveMargin is subtracted: a connection that the
	// backend is about to close must not be given a POST.
	defaultKeepAlive = 5 * time.Second
	keepAliveMargin  = 1 * time.Second
)

type upstreamConn struct {
	net.Conn
	br     *bufio.Reader
	reused bool
	until  time.Time // no longer to be reused from then on
	head   []byte    // buffer for request heads
}

// get takes the connection used last, if it is still good, or dials.
func (u *upstream) get(ctx context.Context) (*upstreamConn, error) {
	for {
		c := u.pop()
		if c == nil {
			return u.dial(ctx)
		}
		if time.Now().Before(c.until) && c.br.Buffered() == 0 && !stirred(rawConn(c.Conn)) {
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
	return &upstreamConn{Conn: conn, br: bufio.NewReaderSize(conn, upstreamBuffer)}, nil
}

// closeIdle closes the kept connections.
func (u *upstream) closeIdle() {
	for c := u.pop(); c != nil; c = u.pop() {
		_ = c.Close()
	}
}
