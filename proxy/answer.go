package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// maxInterim bounds the 1xx answers before the real one.
const maxInterim = 16

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
	case isAny(err, io.EOF, io.ErrUnexpectedEOF):
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
