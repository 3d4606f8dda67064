package matcher

import (
	"context"
	"fmt"
	"net"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Who can write to Redis can put members and values of hundreds of megabytes where look-ups
// read, and go-redis makes room for a string as soon as it knows the length. So what comes
// from Redis is looked through before go-redis sees it, and the connection ends where a string
// or an answer is longer than any of ours.
const (
	// maxString is how many bytes a string may have. An entry's keys have as many.
	maxString = 8 * maxKeys
	// maxAnswer is how many bytes may come after what was written last. The lists of the
	// longest look-up have half a million, a cluster's list of commands about as many.
	maxAnswer = 4 << 20
)

// boundAnswers has the client's connections read no more than that. None may be there yet, so
// MinIdleConns is 0; Watch keeps some ready.
func boundAnswers(db redis.UniversalClient) {
	if c, ok := db.(*redis.ClusterClient); ok {
		c.OnNewNode(func(node *redis.Client) { node.AddHook(bounds{}) })
		return
	}
	db.AddHook(bounds{})
}

// bounds are a hook of go-redis.
type bounds struct{}

func (bounds) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := next(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return bounded(c), nil
	}
}

func (bounds) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (bounds) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// boundedConn follows Redis's protocol as far as lengths of strings go.
type boundedConn struct {
	net.Conn
	left   int  // bytes that may still come
	text   int  // bytes of a string that come next, with the end of its line
	kind   byte // the first byte of the line, 0 before it
	length int  // that the line tells
}

func bounded(c net.Conn) net.Conn {
	b := &boundedConn{Conn: c, left: maxAnswer}
	if raw, ok := c.(syscall.Conn); ok { // by which go-redis sees that an idle connection has ended
		return struct {
			*boundedConn
			syscall.Conn
		}{b, raw}
	}
	return b
}

func (c *boundedConn) Write(p []byte) (int, error) {
	c.left = maxAnswer
	return c.Conn.Write(p)
}

// Read errs again where it did before, and waits for nothing: go-redis may read on.
func (c *boundedConn) Read(p []byte) (int, error) {
	if err := c.over(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.left -= n
	c.look(p[:n])
	if err := c.over(); err != nil {
		return 0, err
	}
	return n, err
}

// over is an error where a bound was passed.
func (c *boundedConn) over() error {
	switch {
	case c.length > maxString:
		return fmt.Errorf("an answer of Redis has a string of more than %d bytes: want none so long; see who else writes there", maxString)
	case c.left < 0:
		return fmt.Errorf("an answer of Redis has more than %d bytes: want less; see who else writes there", maxAnswer)
	}
	return nil
}

// look follows the lines: a string's is its kind and its length, and the string comes behind.
func (c *boundedConn) look(p []byte) {
	for len(p) > 0 && c.length <= maxString {
		if c.text > 0 {
			n := min(c.text, len(p))
			c.text, p = c.text-n, p[n:]
			continue
		}
		b := p[0]
		p = p[1:]
		counts := c.kind == '$' || c.kind == '=' || c.kind == '!' // strings, and errors in their form
		switch {
		case c.kind == 0:
			c.kind, c.length = b, 0
		case b == '\n':
			if counts {
				c.text = c.length + len("\r\n")
			}
			c.kind = 0
		case counts && b == '-': // there is none
			c.kind = '-'
		case counts && '0' <= b && b <= '9':
			c.length = 10*c.length + int(b-'0')
		}
	}
}
