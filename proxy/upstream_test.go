package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// lazyBackend answers as older llama-servers do: OPTIONS, GET, HEAD and whom it refuses before
// it reads their bodies, which it then takes for the next request. Each answer has the path
// that it is for; smuggled counts those to /smuggled.
func lazyBackend(t testing.TB) (url string, smuggled *atomic.Int32) {
	ln := listen(t)
	t.Cleanup(func() { _ = ln.Close() })
	smuggled = new(atomic.Int32)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serveLazily(c, smuggled)
		}
	}()
	return "http://" + ln.Addr().String(), smuggled
}

func serveLazily(c net.Conn, smuggled *atomic.Int32) {
	defer c.Close()
	br := bufio.NewReader(c)
	for {
		line, err := textproto.NewReader(br).ReadLine()
		if err != nil {
			return
		}
		h, err := textproto.NewReader(br).ReadMIMEHeader()
		method, rest, _ := strings.Cut(line, " ")
		path, _, ok := strings.Cut(rest, " ")
		if err != nil || !ok {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad")
			continue
		}
		if path == "/smuggled" {
			smuggled.Add(1)
		}
		status := "200 OK"
		if h.Get("Authorization") == "Bearer wrong" {
			status = "401 Unauthorized"
		} else if method == "POST" {
			n, _ := strconv.Atoi(h.Get("Content-Length"))
			_, _ = io.CopyN(io.Discard, br, int64(n))
		}
		body := path
		if method == "HEAD" {
			body = ""
		}
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s", status, len(path), body)
		if strings.EqualFold(h.Get("Connection"), "close") {
			return
		}
	}
}

func TestABodyThatTheBackendLeavesUnreadIsNobodysRequest(t *testing.T) {
	const whole, begun = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "GET /smuggled HTTP/1.1\r\nX-Rest: "
	f := func(method, key, body string, want int32) {
		t.Helper()
		backend, smuggled := lazyBackend(t)
		s := startSidecar(t, backend, nil)
		do := func(method, path, key, body string) string {
			req, _ := http.NewRequest(method, s.url+path, strings.NewReader(body))
			req.Header.Set("Authorization", key)
			resp, err := freshClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			return string(b)
		}
		do(method, "/first", key, body)
		if got := do("POST", "/next", "", "{}"); got != "/next" {
			t.Errorf("%s with %q: the next client got %q", method, body, got)
		}
		if n := smuggled.Load(); n > want {
			t.Errorf("%s with %q: the backend served what stood in the body", method, body)
		}
	}
	for _, method := range []string{"OPTIONS", "GET", "HEAD", "DELETE"} {
		f(method, "", whole, 0)
		f(method, "", begun, 0)
	}
	f("POST", "Bearer wrong", whole, 1) // it may be served, but who sent it gets nothing of that
	f("POST", "Bearer wrong", begun, 0)
}

func TestAConnectionThatSaysMoreThanWasAskedIsNotReused(t *testing.T) {
	ln := listen(t)
	defer ln.Close()
	var dials atomic.Int32
	more := make(chan struct{})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			first := dials.Add(1) == 1
			go func() {
				br := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
					if first {
						<-more
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers")
						more <- struct{}{}
					}
				}
			}()
		}
	}()
	s := startSidecar(t, "http://"+ln.Addr().String(), nil)
	ask := func() string {
		resp, err := freshClient(t).Post(s.url+"/x", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	ask()
	more <- struct{}{}
	<-more
	time.Sleep(10 * time.Millisecond) // what was written crosses loopback
	if got := ask(); got != "mine" || dials.Load() != 2 {
		t.Errorf("got %q over connection %d, expected an answer of its own over a second one", got, dials.Load())
	}
}

// TestAConnectionOnWhichARequestWasRefusedIsNotReused: the backend may have left the rest of its
// head unread.
func TestAConnectionOnWhichARequestWasRefusedIsNotReused(t *testing.T) {
	f := func(method string, status, want int) {
		t.Helper()
		var dials atomic.Int32
		backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/first" {
				w.WriteHeader(status)
			}
		}))
		backend.Config.ConnState = func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				dials.Add(1)
			}
		}
		backend.Start()
		defer backend.Close()
		s := startSidecar(t, backend.URL, nil)
		for _, path := range []string{"/first", "/next"} {
			req, _ := http.NewRequest(method, s.url+path, nil)
			resp, err := freshClient(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
		if n := dials.Load(); n != int32(want) {
			t.Errorf("%s answered with %d: %d connections for it and the next request, expected %d", method, status, n, want)
		}
	}
	for _, method := range []string{"GET", "POST", "DELETE"} {
		f(method, http.StatusOK, 1)
		f(method, http.StatusBadRequest, 2)
		f(method, http.StatusServiceUnavailable, 2)
	}
}
