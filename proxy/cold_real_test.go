package proxy

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestARequestThatTakesNoWordAboutTheCacheWaitsForThoseSentBeforeTheProbe: in which slots their
// prompts are nobody knows until they are over.
func TestARequestThatTakesNoWordAboutTheCacheWaitsForThoseSentBeforeTheProbe(t *testing.T) {
	var loading atomic.Bool
	came, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	s, _ := interposed(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if loading.Load() && r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.URL.Path == "/completion" && r.Header.Get("X-Tenant") == "y" {
			close(came)
			<-goOn
		}
		backend.ServeHTTP(w, r)
	})
	if err := s.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	loading.Store(true)
	s = unprobed(t, s.backend, apart)
	t.Cleanup(release)
	type got struct {
		status int
		body   string
	}
	send := func(tenant, path, body string) chan got {
		answer := make(chan got, 1)
		go func() {
			status, text := do(t, http.MethodPost, s.url+path, body, "X-Tenant", tenant)
			answer <- got{status, text}
		}()
		return answer
	}
	before := send("y", "/completion", `{"n_predict":1,"prompt":"Tell me of the sea."}`)
	<-came
	message := func() chan got {
		return send("x", "/v1/messages", `{"max_tokens":1,"messages":[{"role":"user","content":"Tell me of the sea."}]}`)
	}
	if r := <-message(); r.status != http.StatusServiceUnavailable {
		t.Errorf("before the probe: status %d, %s; expected 503", r.status, r.body)
	}
	loading.Store(false)
	s.ready()
	answered := message()
	select {
	case r := <-answered:
		t.Fatalf("with an answer from before the probe under way: status %d, %s; expected to wait", r.status, r.body)
	case <-time.After(300 * time.Millisecond):
	}
	release()
	if r := <-before; r.status != http.StatusOK {
		t.Errorf("that answer: status %d, %s", r.status, r.body)
	}
	if r := <-answered; r.status != http.StatusOK || cached(r.body) > 0 {
		t.Errorf("after it: status %d, %s", r.status, r.body)
	}
}
