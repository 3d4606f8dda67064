package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// stepwise is a backend that streams what it is given, piece by piece.
func stepwise(t *testing.T, step <-chan string) (url string) {
	t.Helper()
	return startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		for s := range step {
			_, _ = io.WriteString(w, s)
			_ = http.NewResponseController(w).Flush()
		}
	}).URL
}

// asksByHTTP10 sends a request for a stream, and reads the answer's head.
func asksByHTTP10(t *testing.T, url string) (head string, body *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(c, "POST /completion HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"a\"}")
	body = bufio.NewReader(c)
	for !strings.HasSuffix(head, "\r\n\r\n") {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", head, err)
		}
		head += line
	}
	return head, body
}

func TestStreamsToHTTP10AsItComes(t *testing.T) {
	step := make(chan string)
	s := startSidecar(t, stepwise(t, step), nil)
	head, body := asksByHTTP10(t, s.url)
	for _, want := range []string{"HTTP/1.1 200 OK\r\n", "\r\nContent-Type: text/event-stream\r\n", "\r\nConnection: close\r\n", "\r\n" + controlHeader + ": cold;"} {
		if !strings.Contains(head, want) {
			t.Errorf("no %q in the head %q", want, head)
		}
	}
	for _, framing := range []string{"Content-Length", "Transfer-Encoding", "keep-alive"} {
		if strings.Contains(head, framing) {
			t.Errorf("%s in the head %q", framing, head)
		}
	}
	events := []string{"data: one\n", "data: two\n", "data: {\"timings\":{\"cache_n\":7,\"prompt_n\":3}}\n"}
	for _, event := range events {
		step <- event
		if got, err := body.ReadString('\n'); got != event || err != nil {
			t.Fatalf("got %q and %v, expected %q", got, err, event)
		}
	}
	close(step)
	if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil {
		t.Errorf("at the end %q and %v", rest, err)
	}
	s.stop()
	log := s.log.String()
	for _, field := range []string{`"status":200`, fmt.Sprintf(`"bytes_out":%d,`, len(strings.Join(events, ""))), `"first_byte_ms":`, `"cache_n":7`} {
		if !strings.Contains(log, field) {
			t.Errorf("no %s in the log: %s", field, log)
		}
	}
	if strings.Contains(log, `"error"`) {
		t.Errorf("an error is in the log: %s", log)
	}
}

func TestDrainLetsStreamsToHTTP10End(t *testing.T) {
	step := make(chan string)
	s := startSidecar(t, stepwise(t, step), nil)
	_, body := asksByHTTP10(t, s.url)
	stopped := make(chan struct{})
	go func() { s.stop(); close(stopped) }()
	within(t, "it drains", func() bool { return s.draining.Load() })
	step <- "the rest"
	close(step)
	if got, err := io.ReadAll(body); string(got) != "the rest" || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
	<-stopped
	if n := testutil.ToFloat64(s.metrics.Connections); n != 0 {
		t.Errorf("%v connections are counted as open", n)
	}
}
