package proxy

import (
	"bytes"
	"iter"
	"net"
	"strings"

	"github.com/valyala/fasthttp"
)

// controlHeader carries the client's wish (`off`) in a request and what was
// done in the response. It never reaches the backend.
const controlHeader = "X-SemShareKV"

// hopByHop are the headers of one connection, which a proxy must not pass on
// (RFC 9110, section 7.6.1), with the ones that only say how this hop frames
// its body.
var hopByHop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect", "Content-Length",
}

// isHopByHop also looks at what the peer's own Connection header names.
func isHopByHop(key []byte, connection string) bool {
	for _, h := range hopByHop {
		if foldEqual(key, h) {
			return true
		}
	}
	if connection == "" {
		return false
	}
	for name := range strings.SplitSeq(connection, ",") {
		if foldEqual(key, strings.TrimSpace(name)) {
			return true
		}
	}
	return false
}

// connectionNames is what the Connection headers name, all of them.
func connectionNames(headers iter.Seq2[[]byte, []byte]) (names string) {
	for k, v := range headers {
		if foldEqual(k, "Connection") {
			names += "," + string(v)
		}
	}
	return names
}

func foldEqual(key []byte, name string) bool {
	return len(key) == len(name) && strings.EqualFold(string(key), name)
}

// header returns the single value of a request header and how often it
// stands there. Names are matched in any case: they are kept as sent.
func header(h *fasthttp.RequestHeader, name string) (value string, count int) {
	for k, v := range h.AllInOrder() {
		if foldEqual(k, name) {
			if count == 0 {
				value = string(v)
			}
			count++
		}
	}
	return value, count
}

// requestHead is what the head of a forwarded request is made of.
type requestHead struct {
	method, uri []byte // as sent by the client, uri in origin form
	host        string // of the backend
	client      net.Addr
	bodyLen     int
	decoded     bool // the body no longer has its Content-Encoding
	// apart: conversation, if there is one, takes the place of the client's X-Conversation-Id.
	apart        bool
	conversation string
}

// appendRequestHead writes the head of the request for the backend. The
// values come out of fasthttp's parser, so none holds a line break.
func appendRequestHead(dst []byte, r requestHead, in *fasthttp.RequestHeader) []byte {
	dst = append(dst, r.method...)
	dst = append(dst, ' ')
	dst = append(dst, r.uri...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, r.host...)
	dst = append(dst, "\r\n"...)

	connection := connectionNames(in.AllInOrder())
	for k, v := range in.AllInOrder() {
		if foldEqual(k, "Host") || foldEqual(k, "X-Forwarded-For") || foldEqual(k, controlHeader) ||
			isHopByHop(k, connection) || r.decoded && foldEqual(k, "Content-Encoding") || r.apart && foldEqual(k, conversationHeader) {
			continue
		}
		dst = appendHeader(dst, k, v)
	}
	if r.conversation != "" {
		dst = appendHeader(dst, []byte(conversationHeader), []byte(r.conversation))
	}
	dst = appendForwarded(dst, in, clientIP(r.client))
	if r.bodyLen > 0 || !bodyless(r.method) {
		dst = append(dst, "Content-Length: "...)
		dst = fasthttp.AppendUint(dst, r.bodyLen)
		dst = append(dst, "\r\n"...)
	}
	if r.bodyLen > 0 && !takesBody(r.method) {
		dst = append(dst, "Connection: close\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// appendForwarded tells of the client and the host that it asked, with what proxies before have
// told.
func appendForwarded(dst []byte, in *fasthttp.RequestHeader, client string) []byte {
	var via []string
	var host, told []byte
	for k, v := range in.AllInOrder() {
		switch {
		case foldEqual(k, "X-Forwarded-For"):
			via = append(via, string(v))
		case foldEqual(k, "Host"):
			host = v
		case foldEqual(k, "X-Forwarded-Host"):
			told = v
		}
	}
	if client != "" {
		via = append(via, client)
	}
	if len(via) > 0 {
		dst = appendHeader(dst, []byte("X-Forwarded-For"), []byte(strings.Join(via, ", ")))
	}
	if told == nil && host != nil {
		dst = appendHeader(dst, []byte("X-Forwarded-Host"), host)
	}
	return dst
}

func appendHeader(dst, key, value []byte) []byte {
	dst = append(append(dst, key...), ": "...)
	return append(append(dst, value...), "\r\n"...)
}

func clientIP(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return ""
}

// bodyless methods need no Content-Length when they carry no body.
func bodyless(method []byte) bool {
	return bytes.Equal(method, []byte("GET")) || bytes.Equal(method, []byte("HEAD")) || bytes.Equal(method, []byte("OPTIONS"))
}

// takesBody reports whether any server reads the body of a request with that method. Older
// llama-servers leave others' unread (OPTIONS, GET), and would serve it as a request of its own
// if the connection went on.
func takesBody(method []byte) bool {
	return bytes.Equal(method, []byte("POST")) || bytes.Equal(method, []byte("PUT")) || bytes.Equal(method, []byte("PATCH"))
}

// copyResponseHead passes the backend's status and end-to-end headers to the
// client.
func copyResponseHead(dst, src *fasthttp.ResponseHeader) {
	dst.SetStatusCode(src.StatusCode())
	if m := src.StatusMessage(); len(m) > 0 && string(m) != fasthttp.StatusMessage(src.StatusCode()) {
		dst.SetStatusMessage(m)
	}
	connection := connectionNames(src.All())
	for k, v := range src.All() {
		switch {
		case isHopByHop(k, connection) || foldEqual(k, controlHeader):
		case foldEqual(k, "Content-Type"):
			dst.SetContentTypeBytes(v)
		default:
			dst.AddBytesKV(k, v)
		}
	}
}
