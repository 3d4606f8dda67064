package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestWhatTheBackendWouldReadHalfOfIsNotSent: the limits are cpp-httplib's, less what is added
// on the way.
func TestWhatTheBackendWouldReadHalfOfIsNotSent(t *testing.T) {
	var lines, longest atomic.Int32
	var reached atomic.Bool
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		reached.Store(true)
		lines.Store(2) // Host and Content-Length, which are not in Header
		for k, values := range r.Header {
			for _, v := range values {
				lines.Add(1)
				longest.Store(max(longest.Load(), int32(len(k)+len(v)+len(": \r\n"))))
			}
		}
		_, _ = io.WriteString(w, "reached")
	})
	s := startSidecar(t, backend.URL, nil)
	f := func(name, line, headers, want string) {
		t.Helper()
		reached.Store(false)
		got := raw(t, s.url, line+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+headers+"\r\n")
		ours := strings.Contains(got, "invalid_request_error")
		if !strings.HasPrefix(got, "HTTP/1.1 "+want+" ") || ours != (want != "200") || reached.Load() == ours {
			t.Errorf("%s: the backend was reached: %t, and the answer is %.200q; expected %s", name, reached.Load(), got, want)
		}
		if lines.Load() > 100 || longest.Load() > 8192 {
			t.Errorf("%s: %d headers of up to %d bytes were sent", name, lines.Load(), longest.Load())
		}
	}
	header := func(n int) string { return "X-A: " + strings.Repeat("a", n-len("X-A: \r\n")) + "\r\n" }
	forwarded := "X-Forwarded-For: " + strings.Repeat("1", maxHeader/2) + "\r\n"
	f("a name that is no token", "GET /", "A b: c\r\n", "400")
	f("a header as long as may be", "GET /", header(maxHeader), "200")
	f("a longer one", "GET /", header(maxHeader+1), "431")
	f("one that becomes longer", "GET /", forwarded, "200")
	f("several that become one", "GET /", forwarded+forwarded, "431")
	f("as many headers as may be", "GET /", strings.Repeat("X-A: b\r\n", maxHeaders-2), "200")
	f("more", "GET /", strings.Repeat("X-A: b\r\n", maxHeaders-1), "431")
	f("a target as long as may be", "GET /"+strings.Repeat("a", maxHeader-1), "", "200")
	f("a longer one", "GET /"+strings.Repeat("a", maxHeader), "", "414")
	f("a method that is unknown", "GETS /", "", "405")
}
