package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

const (
	// grace is what the server gets to end in.
	grace = 15 * time.Second
	// firstWait and longestWait bound the time before a restart, which doubles.
	firstWait, longestWait = time.Second, 30 * time.Second
	// steady is how long a server must have been ready for its end to count as
	// the first of its kind.
	steady = time.Minute
	// hopeless is how many restarts in a row may fail to become ready.
	hopeless = 5
	// healthEvery is how often a starting server is asked, progressEvery how often
	// the wait is logged.
	healthEvery, progressEvery = 200 * time.Millisecond, 5 * time.Second
)

// Server keeps a llama-server running.
type Server struct {
	Command *Command
	URL     string
	Log     zerolog.Logger
	// Ended, where given, is called each time the server has ended by itself, before it is
	// started again.
	Ended func()

	running atomic.Pointer[process]
}

// Run starts the server, and starts it again, ever later, when it ends by itself,
// until ctx ends: then the server is asked to end and waited for. The error says
// why it could not be started: its program, or that it ended before it was ready,
// the first time or too often in a row.
func (s *Server) Run(ctx context.Context) error {
	wait, failed := firstWait, 0
	for restarts := 0; ; restarts++ {
		p, err := start(s.Command)
		if err != nil {
			return err
		}
		s.running.Store(p)
		s.Log.Info().Strs("command", s.Command.shown()).Int("pid", p.pid).Msg("llama-server started")
		began := time.Now()
		ready := s.awaitReady(ctx, p)
		if ready {
			failed, began = 0, time.Now()
			s.Log.Info().Str("url", s.URL).Msg("llama-server is ready")
		}
		select {
		case <-ctx.Done():
			p.end(grace)
			s.Log.Info().Str("how", p.how()).Msg("llama-server ended")
			return nil
		case <-p.ended:
		}
		if ctx.Err() != nil {
			return nil
		}
		if s.Ended != nil {
			s.Ended()
		}
		if !ready {
			if failed++; restarts == 0 || failed > hopeless {
				return fmt.Errorf("%s ended before it was ready: %s", s.Command.Args[0], p.how())
			}
		} else if time.Since(began) > steady {
			wait = firstWait
		}
		s.Log.Error().Str("how", p.how()).Stringer("restart_in", wait).Msg("llama-server ended by itself")
		if !sleep(ctx, wait) {
			return nil
		}
		wait = min(2*wait, longestWait)
	}
}

// Kill ends the server at once, without regard for what it does.
func (s *Server) Kill() {
	if p := s.running.Load(); p != nil {
		p.signal(syscall.SIGKILL)
	}
}

// awaitReady waits until the server has its model loaded, and tells whether it
// did: it may end, or ctx.
func (s *Server) awaitReady(ctx context.Context, p *process) bool {
	began, told := time.Now(), time.Now()
	for {
		why := s.health(ctx)
		if why == nil {
			return true
		}
		if time.Since(told) >= progressEvery {
			told = time.Now()
			s.Log.Info().Stringer("for", time.Since(began).Round(time.Second)).Str("status", why.Error()).Msg("waiting for llama-server")
		}
		select {
		case <-ctx.Done():
			return false
		case <-p.ended:
			return false
		case <-time.After(healthEvery):
		}
	}
}

// healthClient keeps no connection, and goes through no proxy.
var healthClient = http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// health asks the server, which answers 503 while it loads its model.
func (s *Server) health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := healthClient.Do(req)
	if err != nil {
		return errors.New("not listening yet")
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/health answers %s", resp.Status)
	}
	return nil
}

// sleep waits unless ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
