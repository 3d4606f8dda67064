package proxy

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/valyala/fasthttp"
)

// Heads that the backend would read otherwise than the sidecar, or not to their end: what it has
// not read it takes for the next request, whoever asked that.

const (
	// maxHeaders and maxHeader, of which the target may have as many bytes, leave room for what
	// appendRequestHead adds: cpp-httplib reads 100 headers, and 8,192 bytes of each.
	maxHeaders = 90
	maxHeader  = 8000
)

// methods are those that llama-server knows, but for some that nothing there answers to. At
// others it reads no head.
var methods = []string{
	fasthttp.MethodGet, fasthttp.MethodHead, fasthttp.MethodPost, fasthttp.MethodPut,
	fasthttp.MethodPatch, fasthttp.MethodDelete, fasthttp.MethodOptions,
}

// unfit is why a request with that head must not be sent on, and the status that says so; ""
// where it may be.
func unfit(h *fasthttp.RequestHeader) (status int, why string) {
	switch n := len(h.RequestURI()); {
	case ambiguous(h.RequestURI()):
		return fasthttp.StatusBadRequest, "the path has %u, which is no percent-encoding (RFC 3986)"
	case n > maxHeader:
		return fasthttp.StatusRequestURITooLong, fmt.Sprintf("the target has %d bytes, and %d are read", n, maxHeader)
	case folded(h):
		return fasthttp.StatusBadRequest, "a header's value runs over several lines (obs-fold, RFC 9112)"
	case !slices.Contains(methods, string(h.Method())):
		return fasthttp.StatusMethodNotAllowed, string(h.Method()) + " is not supported"
	}
	return unfitHeader(h)
}

// unfitHeader is unfit for the headers. fasthttp has seen to their values, and to all in their
// names but spaces.
func unfitHeader(h *fasthttp.RequestHeader) (status int, why string) {
	count, forwardedFor := 0, 0
	for k, v := range h.AllInOrder() {
		n := len(k) + len(": ") + len(v) + len("\r\n")
		if foldEqual(k, "X-Forwarded-For") { // they become one
			forwardedFor += n
			n = forwardedFor
		}
		if bytes.ContainsRune(k, ' ') {
			return fasthttp.StatusBadRequest, fmt.Sprintf("the header name %q has a space, and names are tokens (RFC 9110)", k)
		}
		if n > maxHeader {
			return fasthttp.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the header %s has %d bytes, and %d are read", k, n, maxHeader)
		}
		count++
	}
	if count > maxHeaders {
		return fasthttp.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("the request has %d headers, and %d are read", count, maxHeaders)
	}
	return 0, ""
}

// ambiguous reports whether a path has %uXXXX, which the backend decodes and nobody else:
// it would take it for a path that the sidecar does not see.
func ambiguous(uri []byte) bool {
	path, _, _ := bytes.Cut(uri, []byte("?"))
	return bytes.Contains(path, []byte("%u")) || bytes.Contains(path, []byte("%U"))
}

// folded reports whether the value of a header goes on in another line. RFC 9112, section 5.2,
// lets a server refuse that, and fasthttp would have such lines twice. Only before the headers
// are looked at can it be told.
func folded(h *fasthttp.RequestHeader) bool {
	raw := h.RawHeaders()
	return bytes.Contains(raw, []byte("\n ")) || bytes.Contains(raw, []byte("\n\t"))
}
