package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// errBodyTooLarge means that a body, as sent or decompressed, exceeds the
// limit.
var errBodyTooLarge = errors.New("body too large")

// readBody reads the body of a request, at most limit bytes of it. A client
// that sends nothing for stall is given up.
func readBody(ctx *fasthttp.RequestCtx, limit int64, stall time.Duration) ([]byte, error) {
	r := ctx.RequestBodyStream()
	if r == nil {
		return nil, nil
	}
	size := ctx.Request.Header.ContentLength()
	if int64(size) > limit {
		return nil, errBodyTooLarge
	}
	body := make([]byte, 0, min(max(size+1, 512), maxAnnounced))
	for {
		if len(body) == cap(body) {
			body = slices.Grow(body, further(len(body), size))
		}
		if stall > 0 && len(body) > 0 {
			_ = ctx.SetReadDeadline(time.Now().Add(stall))
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, errBodyTooLarge
		}
		if err == io.EOF {
			if size >= 0 && len(body) < size {
				return nil, io.ErrUnexpectedEOF
			}
			return body, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// maxAnnounced is how much memory a body gets because its length was announced.
const maxAnnounced = 1 << 20

// further is how many bytes more a body gets that has n, of size if that is known: as many
// again, but no more than it can need.
func further(n, size int) int {
	if size < n {
		return n
	}
	return min(n, size+1-n)
}

// maxEncodings bounds how often a body may be compressed over.
const maxEncodings = 3

// decode undoes a Content-Encoding: gzip, deflate, br, zstd, or several in a
// row. The result is never larger than limit.
func decode(body []byte, encoding string, limit int64) ([]byte, error) {
	codings := strings.Split(encoding, ",")
	if len(codings) > maxEncodings {
		return nil, errors.New("too many content encodings")
	}
	for i := len(codings) - 1; i >= 0; i-- {
		coding := strings.ToLower(strings.TrimSpace(codings[i]))
		if coding == "x-gzip" {
			coding = "gzip"
		}
		r := fasthttp.AcquireRequest()
		r.Header.Set("Content-Encoding", coding)
		r.SetBodyRaw(body)
		out, err := r.BodyUncompressedWithLimit(int(limit))
		fasthttp.ReleaseRequest(r)
		if errors.Is(err, fasthttp.ErrBodyTooLarge) {
			return nil, errBodyTooLarge
		}
		if err != nil {
			return nil, err
		}
		body = out
	}
	return body, nil
}

const (
	// lingerTime and lingerBytes bound how long a client is listened to that
	// still sends a body which was refused. Closing at once would reset the
	// connection and could destroy the answer on its way.
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 20
)

// lingering sends the response by itself, as fasthttp would close right after
// it, and then reads on until the client has read it and hangs up.
func lingering(ctx *fasthttp.RequestCtx) {
	var head bytes.Buffer
	_, _ = ctx.Response.WriteTo(&head)
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(c net.Conn) {
		_ = c.SetDeadline(time.Now().Add(lingerTime))
		_, _ = c.Write(head.Bytes())
		_, _ = io.CopyN(io.Discard, c, lingerBytes)
	})
}
