package proxy

import (
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
)

const wants = 3

// needy has no descriptor for the first connections.
type needy struct {
	net.Listener
	tries atomic.Int32
}

func (l *needy) Accept() (net.Conn, error) {
	if l.tries.Add(1) <= wants {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAWantOfDescriptorsDoesNotEndServing(t *testing.T) {
	backend := startBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	cfg := configs.Default()
	cfg.Backend.URL = backend.URL
	s, err := New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ln := &needy{Listener: listen(t)}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln, nil) }()
	resp, err := (&http.Client{Timeout: time.Minute}).Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := ln.tries.Load(); resp.StatusCode != http.StatusTeapot || n <= wants {
		t.Errorf("status %d after %d tries to accept", resp.StatusCode, n)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Errorf("serve: %v", err)
	}
}
