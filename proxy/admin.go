package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// readyFor is how long a check of the backend is believed.
	readyFor = time.Second
	// readyTimeout bounds one check.
	readyTimeout = 2 * time.Second
)

// admin serves what operators ask: /healthz, whether the process lives,
// /readyz, whether requests would be answered and, in the text, whether they
// would be shared, and /metrics.
func (s *Server) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n")
	})
	check := &readiness{check: s.backendHealthy}
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := check.err()
		if s.draining.Load() {
			err = errDraining
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if err := s.sharer.Ready(); err != nil {
			fmt.Fprintf(w, "ok, but nothing is shared: %v\n", err)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	})
	mux.Handle("/metrics", s.metrics.Handler())
	return mux
}

// readiness keeps the last check for a moment, so that probes, however many,
// do not load the backend.
type readiness struct {
	check func() error

	mu   sync.Mutex
	last error
	at   time.Time
}

func (r *readiness) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) > readyFor {
		r.last, r.at = r.check(), time.Now()
	}
	return r.last
}

// backendHealthy asks the backend's own /health, which needs no key.
func (s *Server) backendHealthy() error {
	ctx, cancel := context.WithTimeout(s.base, readyTimeout)
	defer cancel()
	a, err := s.upstream.do(ctx, requestHead{method: []byte("GET"), uri: []byte(s.upstream.prefix + "/health")}, new(fasthttp.RequestHeader), nil)
	if err != nil {
		return err
	}
	defer a.close()
	if status := a.head.StatusCode(); status != http.StatusOK {
		return fmt.Errorf("backend: /health says %d, expected 200", status)
	}
	if !s.sharer.triedOut() {
		return errors.New("the backend is still being tried out")
	}
	return nil
}
