package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// sidecar is a server under test in front of a real HTTP server.
type sidecar struct {
	*Server
	url, admin string
	log        *bytes.Buffer // read only after stop
	stop       func()
}

func startSidecar(t testing.TB, backend string, edit func(*configs.Config)) *sidecar {
	t.Helper()
	cfg := configs.Default()
	cfg.Backend.URL = backend
	if edit != nil {
		edit(cfg)
	}
	var log bytes.Buffer
	s, err := New(cfg, zerolog.New(zerolog.SyncWriter(&log)))
	if err != nil {
		t.Fatal(err)
	}
	ln, admin := listen(t), listen(t)
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln, admin) }()
	var stopped atomic.Bool
	stop := func() {
		if !stopped.CompareAndSwap(false, true) {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return &sidecar{s, "http://" + ln.Addr().String(), "http://" + admin.Addr().String(), &log, stop}
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func startBackend(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// freshClient has connections of its own, closed when the test ends.
func freshClient(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// raw sends bytes as they are and returns all that comes back.
func raw(t testing.TB, url, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(c)
	return string(b)
}

func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func TestPassesEveryPathAndMethodThrough(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Method+" "+r.RequestURI)
		w.Header()["x-Odd-CASE"] = []string{"kept"}
		w.Header().Add("Set-Cookie", "a=1")
		w.Header().Add("Set-Cookie", "b=2; Path=/")
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write(body)
	})
	s := startSidecar(t, backend.URL, nil)
	c := freshClient(t)
	f := func(method, uri, body string) {
		t.Helper()
		req, _ := http.NewRequest(method, s.url+uri, strings.NewReader(body))
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		if method == "HEAD" {
			body = ""
		}
		if resp.StatusCode != http.StatusTeapot || string(got) != body || resp.Header.Get("X-Seen") != method+" "+uri {
			t.Errorf("%s %s: status %d, body %q, the backend saw %q", method, uri, resp.StatusCode, got, resp.Header.Get("X-Seen"))
		}
		if got := resp.Header.Values("Set-Cookie"); !slices.Equal(got, []string{"a=1", "b=2; Path=/"}) {
			t.Errorf("%s %s: cookies %q", method, uri, got)
		}
	}
	f("GET", "/health", "")
	f("GET", "/slots/0?a=b%20c&d=%2F", "")
	f("GET", "/a/../b//c%2Fd", "")
	f("HEAD", "/props", "")
	f("OPTIONS", "/v1/chat/completions", "")
	f("POST", "/tokenize", `{"content":"x"}`)
	f("PUT", "/x", strings.Repeat("large ", 200_000))
	f("DELETE", "/x", "")
	f("PATCH", "/x", "y")

	if got := raw(t, s.url, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "\r\nx-Odd-CASE: kept\r\n") {
		t.Errorf("header names are not kept as sent: %q", got)
	}
	if got := raw(t, s.url, "GET http://elsewhere/abs?q=1 HTTP/1.1\r\nHost: elsewhere\r\nConnection: close\r\n\r\n"); !strings.Contains(got, "X-Seen: GET /abs?q=1\r\n") {
		t.Errorf("a target in absolute form: %q", got)
	}
}

func TestBackendPathPrefix(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	s := startSidecar(t, backend.URL+"/llm/", nil)
	resp, err := freshClient(t).Get(s.url + "/props?x=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, _ := io.ReadAll(resp.Body); string(got) != "/llm/props?x=1" {
		t.Errorf("the backend saw %q, expected /llm/props?x=1", got)
	}
}

func TestHopByHopHeadersEndHere(t *testing.T) {
	seen := make(chan http.Header, 1)
	host := make(chan string, 1)
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header.Clone()
		host <- r.Host
		w.Header().Set("Connection", "X-Private")
		w.Header().Set("X-Private", "1")
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-SemShareKV", "forged")
		w.Header().Set("X-Public", "2")
		_, _ = io.WriteString(w, "ok")
	})
	s := startSidecar(t, backend.URL, nil)
	got := raw(t, s.url, "GET / HTTP/1.1\r\nHost: front\r\nConnection: close, x-mine\r\nX-Mine: 1\r\nX-Yours: 2\r\nX-Yours: 3\r\n"+
		"Upgrade: websocket\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nX-SemShareKV: off\r\nX-Forwarded-For: 10.0.0.1\r\nAuthorization: Bearer k\r\n\r\n")
	h := <-seen
	for _, name := range []string{"X-Mine", "Upgrade", "Te", "Keep-Alive", "Proxy-Authorization", "X-Semsharekv", "Connection"} {
		if v := h.Values(name); len(v) > 0 {
			t.Errorf("the backend got %s: %q", name, v)
		}
	}
	if v := h.Values("X-Yours"); !slices.Equal(v, []string{"2", "3"}) {
		t.Errorf("X-Yours arrived as %q", v)
	}
	if v := h.Get("X-Forwarded-For"); v != "10.0.0.1, 127.0.0.1" {
		t.Errorf("X-Forwarded-For is %q", v)
	}
	if v := h.Get("X-Forwarded-Host"); v != "front" {
		t.Errorf("X-Forwarded-Host is %q", v)
	}
	if v := <-host; "http://"+v != backend.URL {
		t.Errorf("Host is %q, expected the backend's own", v)
	}
	if h.Get("Authorization") != "Bearer k" {
		t.Error("the client's Authorization did not arrive")
	}
	for _, name := range []string{"X-Private", "Keep-Alive", "Proxy-Authenticate", "forged"} {
		if strings.Contains(got, name) {
			t.Errorf("the client got %s: %q", name, got)
		}
	}
	if !strings.Contains(got, "X-Public: 2\r\n") {
		t.Errorf("X-Public is missing: %q", got)
	}
}

func TestStreamsHeadAndChunksAsTheyCome(t *testing.T) {
	step := make(chan string)
	s := startSidecar(t, stepwise(t, step), nil)
	resp, err := freshClient(t).Post(s.url+"/v1/chat/completions", "application/json", strings.NewReader(`{"messages":[],"stream":true}`))
	if err != nil {
		t.Fatal(err) // the head must be here before the first chunk exists
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	br := bufio.NewReader(resp.Body)
	for i := range 20 {
		event := fmt.Sprintf("data: {\"content\":\"%d\"}\n", i)
		step <- event
		if got, err := br.ReadString('\n'); got != event || err != nil {
			t.Fatalf("chunk %d: %q, %v", i, got, err)
		}
	}
	step <- "data: {\"timings\":{\"cache_n\":7,\"prompt_n\":3,\"prompt_ms\":1.5}}\n\ndata: [DONE]\n\n"
	close(step)
	if rest, err := io.ReadAll(br); err != nil || !strings.HasSuffix(string(rest), "[DONE]\n\n") {
		t.Errorf("end of the stream: %q, %v", rest, err)
	}
	s.stop()
	if log := s.log.String(); !strings.Contains(log, `"cache_n":7`) || !strings.Contains(log, `"prompt_n":3`) {
		t.Errorf("the backend's counts are not in the log: %s", log)
	}
}

func TestClientDisconnectCancelsTheBackend(t *testing.T) {
	f := func(name, path, version string, answerFirst, pipelined bool, status int) {
		t.Run(name, func(t *testing.T) {
			started, gone := make(chan struct{}), make(chan time.Time, 1)
			backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.ReadAll(r.Body)
				if answerFirst {
					_, _ = io.WriteString(w, "data: 1\n\n")
					_ = http.NewResponseController(w).Flush()
				}
				select {
				case started <- struct{}{}:
				case <-r.Context().Done():
					return
				}
				<-r.Context().Done()
				gone <- time.Now()
			})
			s := startSidecar(t, backend.URL, nil)
			c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, "POST "+path+" HTTP/"+version+"\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}")
			if pipelined {
				_, _ = io.WriteString(c, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
			}
			<-started
			if status != 0 {
				if _, err := c.Read(make([]byte, 512)); err != nil {
					t.Fatal(err)
				}
			}
			left := time.Now()
			_ = c.Close()
			select {
			case at := <-gone:
				t.Logf("the backend was told %v after the client left", at.Sub(left))
			case <-time.After(time.Minute):
				t.Fatal("the backend was never told")
			}
			within(t, "the cancellation is counted", func() bool { return testutil.ToFloat64(s.metrics.ClientGone) == 1 })
			within(t, "nothing is in flight", func() bool { return testutil.ToFloat64(s.metrics.InFlight) == 0 })
			s.stop()
			log := s.log.String()
			if !strings.Contains(log, errClientGone.Error()) || !strings.Contains(log, fmt.Sprintf(`"status":%d,`, status)) {
				t.Errorf("status %d, log: %s", status, log)
			}
			if n := testutil.ToFloat64(s.metrics.Statuses.WithLabelValues("5xx")); n != 0 {
				t.Errorf("%v answers are counted as 5xx", n)
			}
		})
	}
	f("before the answer", "/completion", "1.1", false, false, 0)
	f("mid-stream", "/completion", "1.1", true, false, 200)
	f("mid-stream, by HTTP/1.0", "/completion", "1.0", true, false, 200)
	f("with a pipelined request unread", "/completion", "1.1", false, true, 0)
	f("on a path that passes through", "/tokenize", "1.1", false, false, 0)
}

func TestBodyLimit(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		_, _ = fmt.Fprint(w, n)
	})
	const limit = 100_000
	s := startSidecar(t, backend.URL, func(c *configs.Config) { c.Limits.Body = limit })
	f := func(body io.Reader, encoding string, want int) {
		t.Helper()
		req, _ := http.NewRequest("POST", s.url+"/completion", body)
		if encoding != "" {
			req.Header.Set("Content-Encoding", encoding)
		}
		resp, err := freshClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != want {
			t.Fatalf("status %d, expected %d: %s", resp.StatusCode, want, got)
		}
		if want == 413 && (!strings.Contains(string(got), "limit of 100000 bytes") || !strings.HasPrefix(string(got), `{"error":{"code":413,`)) {
			t.Errorf("error is %s", got)
		}
	}
	text := strings.Repeat("x", limit)
	f(strings.NewReader(text), "", 200)
	f(io.MultiReader(strings.NewReader(text)), "", 200) // chunked
	f(strings.NewReader(text+"x"), "", 413)
	f(io.MultiReader(strings.NewReader(text+"x")), "", 413)
	f(strings.NewReader(strings.Repeat(text, 300)), "", 413) // still sending when refused
	var bomb bytes.Buffer
	zw := gzip.NewWriter(&bomb)
	_, _ = io.WriteString(zw, text+text)
	_ = zw.Close()
	f(&bomb, "gzip", 413)
}

// echo is a backend that answers with what it got.
func echo(t *testing.T) (url string) {
	t.Helper()
	return startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Encoding", r.Header.Get("Content-Encoding"))
		_, _ = w.Write(body)
	}).URL
}

// passes sends a body, as tenant a, and checks what echo got of it.
func (s *sidecar) passes(t *testing.T, path, encoding, sent, want, wantEncoding string) {
	t.Helper()
	req, _ := http.NewRequest("POST", s.url+path, strings.NewReader(sent))
	req.Header.Set("Content-Encoding", encoding)
	req.Header.Set("X-Tenant", "a")
	resp, err := freshClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, _ := io.ReadAll(resp.Body)
	if string(got) != want || resp.Header.Get("X-Encoding") != wantEncoding {
		t.Errorf("%s %s, %q: the backend got %q as %q", path, encoding, sent, got, resp.Header.Get("X-Encoding"))
	}
}

func TestCompressedBodies(t *testing.T) {
	s := startSidecar(t, echo(t), func(c *configs.Config) {
		off := c.Defaults
		off.Reuse = configs.ReuseOff
		c.Routes = []configs.Route{{Name: "off", Match: configs.Match{Path: "/completions"}, Policy: off}}
	})
	const plain = `{"prompt":"squeezed"}`
	squeeze := map[string]func(io.Writer) io.WriteCloser{
		"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
		"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
		"zstd":    func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
	}
	encode := func(encoding string) string {
		if encoding == "br" {
			return string(fasthttp.AppendBrotliBytes(nil, []byte(plain)))
		}
		var b bytes.Buffer
		z := squeeze[encoding](&b)
		_, _ = io.WriteString(z, plain)
		_ = z.Close()
		return b.String()
	}
	for _, encoding := range []string{"gzip", "deflate", "br", "zstd"} {
		s.passes(t, "/completion", encoding, encode(encoding), plain, "")
		s.passes(t, "/tokenize", encoding, encode(encoding), encode(encoding), encoding)    // no prompt to read
		s.passes(t, "/completions", encoding, encode(encoding), encode(encoding), encoding) // route off
	}
	s.passes(t, "/completion", "gzip", "not gzip", "not gzip", "gzip")
	s.passes(t, "/completion", "identity", plain, plain, "identity")
}

func TestAByteOrderMarkIsSkipped(t *testing.T) {
	backend := echo(t)
	const plain = `{"prompt":"marked"}`
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, bom+plain)
	_ = z.Close()

	s := startSidecar(t, backend, nil)
	s.passes(t, "/completion", "identity", bom+plain, bom+plain, "identity") // untouched
	s.passes(t, "/completion", "identity", bom+bom+plain, bom+bom+plain, "identity")
	s.passes(t, "/completion", "gzip", zipped.String(), plain, "")

	apart := startSidecar(t, backend, func(c *configs.Config) {
		c.Defaults.Tenant = configs.Tenant{Source: "header", Name: "X-Tenant"}
	})
	apart.passes(t, "/completion", "identity", bom+plain, `{"prompt":"marked","cache_prompt":false}`, "identity")
}

func TestExpectContinue(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s|%s", body, r.Header.Get("Expect"))
	})
	s := startSidecar(t, backend.URL, nil)
	got := raw(t, s.url, "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
	if !strings.HasPrefix(got, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "hi|") {
		t.Errorf("got %q", got)
	}
}

func TestOldAndOddClients(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "one ")
		_ = http.NewResponseController(w).Flush() // chunked
		_, _ = io.WriteString(w, "two")
	})
	s := startSidecar(t, backend.URL, nil)
	f := func(request string, want ...string) {
		t.Helper()
		got := raw(t, s.url, request)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%q gave %q, expected %q in it", request, got, w)
			}
		}
	}
	f("GET / HTTP/1.0\r\n\r\n", "Connection: close\r\n", "\r\n\r\none two")
	f("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n", "two\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", "\r\n\r\none two")
	f("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "two\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n")
	f("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nConnection: close\r\n\r\n", "HTTP/1.1 405 ", "CONNECT is not supported")
	f("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-A: b\r\n c\r\n\r\n", "HTTP/1.1 400 ", "runs over several lines")
	f("GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n\tc\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 400 ", "HTTP/1.1 200 ")
	f("nonsense\r\n\r\n", "HTTP/1.1 400 ", `{"error":{"code":400`)
	f("GET / HTTP/1.1\r\nHost: a\r\nX-Long: "+strings.Repeat("x", readBuffer)+"\r\n\r\n", "HTTP/1.1 431 ", `"code":431`)
	f("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", "HTTP/1.1 ")
}

// TestRefusalsCanBeReadByAnyOrigin: as the backend's answers can.
func TestRefusalsCanBeReadByAnyOrigin(t *testing.T) {
	s := startSidecar(t, "http://127.0.0.1:1", nil)
	f := func(request, want string) {
		t.Helper()
		const allowed = "\r\nAccess-Control-Allow-Origin: https://app.example\r\n"
		if got := raw(t, s.url, request+"oRigin: https://app.example\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 "+want+" ") || !strings.Contains(got, allowed) {
			t.Errorf("%q gave %q", request, got)
		}
		if got := raw(t, s.url, request+"\r\n"); strings.Contains(got, "Access-Control") {
			t.Errorf("%q without Origin gave %q", request, got)
		}
	}
	f("GET /%u HTTP/1.0\r\n", "400")
	f("GET / HTTP/1.0\r\n", "502")
}

func TestSemiCompleteAnswerIsCutOffForTheClientToo(t *testing.T) {
	ln := listen(t)
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			_ = c.Close()
		}
	}()
	s := startSidecar(t, "http://"+ln.Addr().String(), nil)
	resp, err := freshClient(t).Get(s.url + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); string(got) != "hello" || err == nil {
		t.Errorf("got %q and error %v, expected hello and an error", got, err)
	}
	within(t, "the fault is counted", func() bool { return testutil.ToFloat64(s.metrics.BackendErrors) == 1 })
	_, body := asksByHTTP10(t, s.url)
	if got, err := io.ReadAll(body); string(got) != "hello" || err == nil {
		t.Errorf("by HTTP/1.0: got %q and error %v, expected hello and an error", got, err)
	}
	within(t, "the fault is counted by HTTP/1.0 too", func() bool { return testutil.ToFloat64(s.metrics.BackendErrors) == 2 })
}

func TestBackendAway(t *testing.T) {
	ln := listen(t)
	_ = ln.Close()
	s := startSidecar(t, "http://"+ln.Addr().String(), nil)
	for _, path := range []string{"/health", "/completion"} {
		resp, err := freshClient(t).Post(s.url+path, "application/json", strings.NewReader(`{"prompt":"a"}`))
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 502 || !strings.HasPrefix(string(got), `{"error":{"code":502,`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, got)
		}
	}
	resp, err := http.Get(s.admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("/readyz says %d, expected 503", resp.StatusCode)
	}
}

func TestConnectionsToTheBackendAreReused(t *testing.T) {
	var dials atomic.Int32
	backend := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "b")
	}))
	backend.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			dials.Add(1)
		}
	}
	backend.Start()
	defer backend.Close()
	s := startSidecar(t, backend.URL, nil)
	c := freshClient(t)
	for i := range 30 {
		path := []string{"/", "/completion"}[i%2]
		resp, err := c.Post(s.url+path, "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("%d connections for 30 requests in a row, expected 1", n)
	}
}

// A backend that closes kept connections without a word, as one that was
// restarted does, and llama-server after a stream.
func TestStaleConnections(t *testing.T) {
	const whole, stream = "Content-Length: 0\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
	f := func(name, method, first string, closeAfterReading bool, want int, wantSeen int32) {
		t.Run(name, func(t *testing.T) {
			var seen atomic.Int32
			kept := make(chan net.Conn, 1)
			ln := listen(t)
			defer ln.Close()
			go func() {
				for n := 0; ; n++ {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						br := bufio.NewReader(c)
						for i := 0; ; i++ {
							req, err := http.ReadRequest(br)
							if err != nil {
								return
							}
							_, _ = io.Copy(io.Discard, req.Body)
							if req.URL.Path == "/first" {
								_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+first)
								kept <- c
								continue
							}
							seen.Add(1)
							if i > 0 && closeAfterReading {
								_ = c.Close()
								return
							}
							_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n"+whole)
						}
					}()
				}
			}()
			s := startSidecar(t, "http://"+ln.Addr().String(), nil)
			c := freshClient(t)
			do := func(path string) int {
				req, _ := http.NewRequest(method, s.url+path, nil)
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			do("/first")
			k := <-kept
			if !closeAfterReading {
				_ = k.Close()
				time.Sleep(10 * time.Millisecond) // the FIN crosses loopback
			}
			if got := do("/second"); got != want || seen.Load() != wantSeen {
				t.Errorf("status %d, the backend saw it %d times; expected %d and %d", got, seen.Load(), want, wantSeen)
			}
		})
	}
	f("closed before, POST", "POST", whole, false, 200, 1)
	f("closed before, GET", "GET", whole, false, 200, 1)
	f("closed after the request was read, GET", "GET", whole, true, 200, 2)
	f("closed after the request was read, POST is not repeated", "POST", whole, true, 502, 1)
	f("closed after a stream, POST", "POST", stream, true, 200, 1)
}

func TestDrain(t *testing.T) {
	started, finish := make(chan struct{}), make(chan struct{})
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(started)
			<-finish
		}
		_, _ = io.WriteString(w, "done")
	})
	s := startSidecar(t, backend.URL, nil)
	answer := make(chan string, 1)
	go func() {
		resp, err := freshClient(t).Get(s.url + "/slow")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		answer <- string(b)
	}()
	<-started
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	within(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	resp, err := http.Get(s.admin + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 503 {
		t.Errorf("/readyz says %d while draining, expected 503", resp.StatusCode)
	}
	close(finish)
	if got := <-answer; got != "done" {
		t.Errorf("the request in flight got %q", got)
	}
	<-stopped
}

func TestAmbiguousPathsAreRefused(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "reached") })
	s := startSidecar(t, backend.URL, nil)
	f := func(target string, want int) {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "POST "+target+" HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", target, resp.StatusCode, want)
		}
	}
	f("/%u0063ompletion", 400)
	f("/v1/%U0063hat/completions?x=%u", 400)
	f("/%63ompletion", 200)
	f("/a?b=%u0063", 200)
}

// serving is a sidecar that the test itself shuts down; done has what Serve returned.
func serving(t *testing.T, backend string, idle time.Duration) (s *Server, addr string, done chan error) {
	t.Helper()
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Limits.Idle = backend, idle
	s, err := New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t)
	done = make(chan error, 1)
	go func() { done <- s.Serve(ln, nil) }()
	return s, ln.Addr().String(), done
}

// TestAClientThatReadsNothing holds up neither its slot's end nor the sidecar's.
func TestAClientThatReadsNothing(t *testing.T) {
	f := func(name, version string, idle time.Duration, end func(s *Server)) {
		t.Helper()
		began := make(chan struct{})
		backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
			close(began)
			for r.Context().Err() == nil {
				_, _ = w.Write(make([]byte, 1<<20))
			}
		})
		s, addr, done := serving(t, backend.URL, idle)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/"+version+"\r\nHost: a\r\n\r\n")
		<-began
		end(s)
		within(t, name+", HTTP/"+version, func() bool { return testutil.ToFloat64(s.metrics.InFlight) == 0 })
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_ = s.Shutdown(ctx)
		<-done
	}
	for _, version := range []string{"1.1", "1.0"} {
		f("it was given up", version, 300*time.Millisecond, func(*Server) {})
		f("it was cut off", version, time.Hour, func(s *Server) {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			_ = s.Shutdown(ctx)
		})
	}
}

func TestDrainGivenUpCutsRequestsOff(t *testing.T) {
	started, gone := make(chan struct{}), make(chan struct{})
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(gone)
	})
	s, addr, done := serving(t, backend.URL, time.Minute)
	status := make(chan int, 1)
	go func() {
		resp, err := freshClient(t).Get("http://" + addr + "/")
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-started
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); err == nil {
		t.Error("Shutdown says nothing of the request that it cut off")
	}
	<-gone
	if got := <-status; got != 503 {
		t.Errorf("the client got %d, expected 503", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPanicLosesOneRequestOnly(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	s := startSidecar(t, backend.URL, nil)
	cfg := s.config.Load()
	s.config.Store(nil) // any fault will do
	resp, err := freshClient(t).Get(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 500 {
		t.Errorf("status %d, expected 500", resp.StatusCode)
	}
	s.config.Store(cfg)
	if resp, err = freshClient(t).Get(s.url + "/"); err != nil || resp.StatusCode != 200 {
		t.Errorf("the next request: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	if got := testutil.ToFloat64(s.metrics.Panics); got != 1 {
		t.Errorf("%v panics counted, expected 1", got)
	}
}

func TestReloadAppliesToTheNextRequest(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	s := startSidecar(t, backend.URL, nil)
	post := func() int {
		resp, err := freshClient(t).Post(s.url+"/x", "text/plain", strings.NewReader("12345"))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := post(); got != 200 {
		t.Fatalf("status %d", got)
	}
	cfg := *s.config.Load()
	cfg.Limits.Body = 4
	s.Reload(&cfg)
	if got := post(); got != 413 {
		t.Errorf("status %d after the limit was lowered, expected 413", got)
	}
}

// TestIdleTimeoutIsThatOfTheStart: connections were given theirs then, and requests go by
// the same.
func TestIdleTimeoutIsThatOfTheStart(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	s := startSidecar(t, backend.URL, nil)
	cfg := *s.config.Load()
	cfg.Limits.Idle = 1 // ns, within which nobody sends or takes anything
	s.Reload(&cfg)
	if got := raw(t, s.url, "POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n12345"); !strings.HasSuffix(got, "\r\n\r\n12345") {
		t.Errorf("answered %q", got)
	}
}

func TestAdmin(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	s := startSidecar(t, backend.URL, nil)
	resp, err := freshClient(t).Post(s.url+"/completion", "application/json", strings.NewReader(`{"prompt":["a","b"]}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	f := func(path string, want ...string) {
		t.Helper()
		resp, err := http.Get(s.admin + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
		for _, w := range want {
			if !strings.Contains(string(body), w) {
				t.Errorf("%s: no %s in\n%s", path, w, body)
			}
		}
	}
	within(t, "the request is counted", func() bool { return testutil.CollectAndCount(s.metrics.Requests) == 1 })
	f("/healthz", "ok")
	f("/readyz", "ok")
	f("/metrics", `semsharekv_requests_total{endpoint="completion",`, `semsharekv_responses_total{class="2xx"} 1`,
		"semsharekv_config_last_reload_successful 1", "semsharekv_restore_mismatches_total 0", "go_goroutines")
}

// TestLogHoldsNoPromptAndNoSecret asks for a log of everything, and a backend whose errors
// quote the prompt.
func TestLogHoldsNoPromptAndNoSecret(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/completion":
			_, _ = io.WriteString(w, `{"content":"ANSWERTEXT"}`)
		case "/broken":
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nANSWERTEXT\r\n\r\n")
			_ = c.Close()
		default:
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprintf(w, `{"error":{"message":%q}}`, "Missing 'role' in message: "+string(body))
		}
	})
	s := startSidecar(t, backend.URL, nil)
	s.sharer.log, s.sharer.metrics, s.sharer.backend = s.Server.log, s.metrics, bridge.NewBackend(backend.URL, "", time.Second)
	s.sharer.live.Store(&live{tokenizer: tokenizer{backend: s.sharer.backend}, probed: &bridge.Probed{}, costs: newCosts(&bridge.Probed{}, 1), slots: newSlots(1)})
	f := func(path, body string, status int, did string) {
		t.Helper()
		req, _ := http.NewRequest("POST", s.url+path+"?key=QUERYSECRET", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer KEYSECRET")
		resp, err := freshClient(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get(controlHeader); resp.StatusCode != status || got != did {
			t.Errorf("%s: status %d, %q; expected %d, %q", path, resp.StatusCode, got, status, did)
		}
	}
	f("/completion", `{"prompt":"PROMPTTEXT"}`, 200, "cold; reason="+coldTokens)
	f("/v1/chat/completions", `{"messages":[{"content":"PROMPTTEXT"}]}`, 500, "cold; reason="+coldTokens)
	f("/broken", "PROMPTTEXT", 502, "")
	const start = "POST /completion?QUERYSECRET HTTP/1.1\r\nHost: a\r\n"
	for _, broken := range []string{
		start + "Authorization: Bearer KEYSECRET\x01\r\n\r\n",
		start + "Authorization Bearer KEYSECRET\r\n\r\n",
		"POST /a?QUERYSECRET\x01 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"POST http://a:QUERYSECRET/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		start + "Content-Length: 1KEYSECRET\r\n\r\nPROMPTTEXT",
		start + "Transfer-Encoding: chunked\r\n\r\nPROMPTTEXT\r\n",
		start + "Transfer-Encoding: chunked\r\n\r\n1\r\nPROMPTTEXT\r\n",
		start + "Content-Length: 0\r\n\r\nPROMPTTEXT\r\n\r\n",
		start + "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 37\r\nConnection: close\r\n\r\n--b\r\nContent PROMPTTEXT KEYSECRET\r\n\r\n",
	} {
		raw(t, s.url, broken)
	}
	s.stop()
	log := s.log.String()
	for _, line := range []string{`"path":"/completion"`, `"message":"no tokens"`, `"message":"connection not served to its end"`, `"error":"backend answered /tokenize with status 500"`} {
		if !strings.Contains(log, line) {
			t.Errorf("no %s in the log: %s", line, log)
		}
	}
	for _, secret := range []string{"PROMPTTEXT", "ANSWERTEXT", "KEYSECRET", "QUERYSECRET"} {
		if i := strings.Index(log, secret); i >= 0 {
			t.Errorf("%s is in the log: %s", secret, log[max(0, i-300):i])
		}
	}
}

func TestAnyOffDeclines(t *testing.T) {
	f := func(want bool, values ...string) {
		t.Helper()
		head := "GET / HTTP/1.1\r\nHost: a\r\n"
		for _, v := range values {
			head += "x-semsharekv: " + v + "\r\n"
		}
		var h fasthttp.RequestHeader
		h.DisableNormalizing()
		if err := h.Read(bufio.NewReader(strings.NewReader(head + "\r\n"))); err != nil {
			t.Fatal(err)
		}
		if got := declines(&h); got != want {
			t.Errorf("%q: %v, expected %v", values, got, want)
		}
	}
	f(false)
	f(false, "on", "")
	f(true, "off")
	f(true, "on", " Off ")
	f(true, "off, off")
	f(true, "a,off")
	f(false, "offset")
}
