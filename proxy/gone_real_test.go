package proxy

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAClientThatLeavesBeforeItsRequestIsForwarded is why that is cold, wherever it waited.
func TestAClientThatLeavesBeforeItsRequestIsForwarded(t *testing.T) {
	var held atomic.Pointer[string] // what the backend does not answer, by the end of its URI
	reached := make(chan struct{}, 9)
	s, _ := interposed(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if end := held.Load(); end != nil && strings.HasSuffix(r.RequestURI, *end) {
			_, _ = io.Copy(io.Discard, r.Body) // else nobody sees that the sidecar hangs up
			reached <- struct{}{}
			<-r.Context().Done()
			return
		}
		backend.ServeHTTP(w, r)
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	m := s.server.metrics
	cold := func(reason string) float64 {
		return testutil.ToFloat64(m.Requests.WithLabelValues("completion", "cold", reason))
	}
	n := 0.0
	leave := func(where string, waits func()) {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body := `{"prompt":` + quote("Once more. "+tale("1847")) + `}`
		req, _ := http.NewRequest("POST", s.url+"/completion", strings.NewReader(body))
		if err := req.Write(c); err != nil {
			t.Fatal(err)
		}
		waits()
		_ = c.Close()
		n++
		within(t, where+": it is noticed", func() bool { return testutil.ToFloat64(m.ClientGone) == n })
		if err := s.server.sharer.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := cold(coldClientGone); got != n {
			t.Errorf("%s: %v requests are cold for %q, expected %v", where, got, coldClientGone, n)
		}
		if got := testutil.ToFloat64(m.Statuses.WithLabelValues("none")); got != n {
			t.Errorf("%s: %v answers never came, expected %v", where, got, n)
		}
	}
	for _, end := range []string{"/tokenize", "?action=restore"} {
		held.Store(&end)
		leave(end, func() { <-reached })
	}
	held.Store(nil)
	slots := s.live().slots
	slots.acquireAll(t.Context())
	leave("for a slot", func() {
		within(t, "it waits for a slot", func() bool {
			slots.mu.Lock()
			defer slots.mu.Unlock()
			return len(slots.queue) == 1
		})
	})
	slots.releaseAll()
	s.want(s.complete("Once more. "+tale("1847")), "shared")
}
