package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
)

const tenantHeader = "X-Tenant"

// sidecar is the running program.
type sidecar struct {
	url  string
	log  string
	cmd  *exec.Cmd
	done chan error
}

// startSidecar runs `semsharekv serve` and waits until it is ready. Only the
// tenant is configured; all else is the default.
func startSidecar(ctx context.Context, bin string, b *lab.Backend, files string) (*sidecar, error) {
	port, err := lab.FreePort()
	if err != nil {
		return nil, err
	}
	admin, err := lab.FreePort()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("defaults:\n  tenant: {source: header, name: %s}\n", tenantHeader)
	if err := os.WriteFile(files+".yaml", []byte(config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(files + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	addr := func(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
	s := &sidecar{url: "http://" + addr(port), log: log.Name(), done: make(chan error, 1)}
	s.cmd = exec.Command(bin, "serve", "--config", files+".yaml", "--backend", b.URL, "--slot-dir", b.SlotDir,
		"--listen", addr(port), "--admin", addr(admin))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the sidecar (make build makes it): %w", err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	return s, s.ready(ctx, "http://"+addr(admin)+"/metrics")
}

// ready waits until the sidecar has found out that the backend can share.
func (s *sidecar) ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if resp, err := http.Get(url); err == nil {
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if strings.Contains(string(text), "\nsemsharekv_sharing 1\n") {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			s.kill()
			return fmt.Errorf("the sidecar is not ready: %w\n%s", ctx.Err(), s.tail())
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("the sidecar ended: %v\n%s", err, s.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// stop asks the sidecar to end, which it must do in order.
func (s *sidecar) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case err := <-s.done:
		s.done <- err
		if err != nil {
			return fmt.Errorf("the sidecar did not end in order: %w\n%s", err, s.tail())
		}
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("the sidecar did not end\n%s", s.tail())
	}
}

// kill ends the sidecar if it still runs.
func (s *sidecar) kill() {
	_ = s.cmd.Process.Kill()
	s.done <- <-s.done
}

// tail is the end of the sidecar's log.
func (s *sidecar) tail() string {
	text, _ := os.ReadFile(s.log)
	return "end of the sidecar's log:\n" + string(text[max(0, len(text)-3000):])
}
