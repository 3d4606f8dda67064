package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// Connections that fasthttp refuses by itself show in the log, and those that are open as a
// number.
func TestRefusedConnectionsAreSeen(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "ok") })
	s := startSidecar(t, backend.URL, func(c *configs.Config) { c.Limits.Connections = 1 })
	open := func() float64 { return testutil.ToFloat64(s.metrics.Connections) }
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, " 200 ") {
		t.Fatalf("the first connection: %q, %v", line, err)
	}
	if answer := raw(t, s.url, "GET /health HTTP/1.1\r\nHost: h\r\n\r\n"); !strings.Contains(answer, " 503 ") {
		t.Errorf("the second connection: %q, want 503", answer)
	}
	within(t, "one connection is open", func() bool { return open() == 1 })
	_ = c.Close()
	within(t, "none is", func() bool { return open() == 0 })
	s.stop()
	if log := s.log.String(); !strings.Contains(log, `{"level":"warn","message":"connections are refused: limits.connections are open"}`) {
		t.Errorf("log: %s", log)
	}
}

// Refusals and short prompts, which are cold and quick, would make cold look fast.
func TestFirstBytesCompareLikeWithLike(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{Context: 4096}, nil)
	s.want(s.complete("Short."), "cold")
	if r := s.post("/completion", `{"prompt":"`+strings.Repeat("long ", 1500)+`"}`); r.status/100 == 2 {
		t.Fatalf("status %d for a prompt that fills its slot", r.status)
	}
	if r := s.post("/completion", `{"prompt":"`+strings.Repeat("word ", 300)+`","temperature":"hot"}`); r.status/100 == 2 {
		t.Fatalf("status %d for a temperature that is no number", r.status)
	}
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("Once more. "+tale("1812")), "shared")
	page := httptest.NewRecorder()
	s.server.metrics.Handler().ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	for _, state := range []string{"cold", "shared"} {
		want := `semsharekv_first_byte_seconds_count{state="` + state + `"} 1`
		if !strings.Contains(page.Body.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, page.Body)
		}
	}
}
