package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// TestABusyBackendIsTriedOut: with more clients than slots, none of which is ever idle.
func TestABusyBackendIsTriedOut(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	s := startSharing(t, lab.BackendOptions{Model: model, NoRAMCache: true, Context: 4096, Threads: 1}, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var all, begun sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for c := range 4 {
		begun.Add(1)
		all.Go(func() {
			begin := sync.OnceFunc(begun.Done)
			defer begin()
			for i := 0; ctx.Err() == nil; i++ {
				body, _ := json.Marshal(map[string]any{"prompt": fmt.Sprint(c, " ", i, " hello there"), "n_predict": 60, "ignore_eos": true})
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/completion", strings.NewReader(string(body)))
				if resp, err := http.DefaultClient.Do(req); err == nil {
					resp.Body.Close()
				}
				begin()
			}
		})
	}
	begun.Wait()
	s.probedAnew("a doubt under load", func() { s.server.sharer.Doubt("it may have been started anew") })
	if s.live().probed.Volatile {
		t.Error("the server is said to empty its slots")
	}
}

func TestRequestsAreHeldUntilTheProbeIsOverAndNotForLong(t *testing.T) {
	var h hold
	h.wait(context.Background()) // nobody probes
	waits := func() chan struct{} {
		went := make(chan struct{})
		go func() {
			h.wait(context.Background())
			close(went)
		}()
		return went
	}
	f := func(name string, let func()) {
		t.Helper()
		h.end() // whatever was before
		h.begin()
		went := waits()
		select {
		case <-went:
			t.Fatalf("%s: a request was not held", name)
		case <-time.After(50 * time.Millisecond):
		}
		let()
		select {
		case <-went:
		case <-time.After(time.Minute):
			t.Fatalf("%s: a request is held for ever", name)
		}
	}
	f("the probe is over", h.end)
	f("the probe takes long", func() {})
	f("the probe begins again and again", func() {
		stop := time.Now().Add(holdFor + time.Second)
		for time.Now().Before(stop) {
			h.begin()
			time.Sleep(10 * time.Millisecond)
		}
	})
	h.end()
	h.wait(context.Background())
}
