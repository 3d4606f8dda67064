package eval

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/proxy"
)

// sidecar is the product itself, listening on a port of its own in process.
type sidecar struct {
	server  *proxy.Server
	sharer  *proxy.Sharer // the server's
	url     string
	admin   string // base URL
	ended   chan error
	reports chan proxy.Report
}

// Listen is where a sidecar that is measured listens: on a free port.
const Listen = "127.0.0.1:0"

// Measured makes a configuration that of a sidecar that is measured: on free ports, so that
// the backend may have the one that serve would take, with all prompts of one tenant, who is
// nobody else's, in this run or another, and without routes, so that it is the defaults that
// are measured, as the report says.
func Measured(c *configs.Config) {
	c.Listen, c.Admin = Listen, Listen
	c.Defaults.Tenant = configs.Tenant{Source: "shared", Name: "eval " + rand.Text()}
	c.Routes = nil
}

const (
	// readyTime bounds the wait until the sidecar has probed the backend.
	readyTime = 2 * time.Minute
	readyPoll = 50 * time.Millisecond
	// tellEvery is how often that wait is told of.
	tellEvery = 5 * time.Second
	// reportTime bounds the wait for the report of a request that was answered.
	reportTime = 30 * time.Second
	// closeTime bounds the sidecar's end, and before it that of tidying up.
	closeTime = 10 * time.Second
)

// startSidecar returns once it shares with the backend; what it waits for meanwhile
// goes to out.
func startSidecar(ctx context.Context, cfg *configs.Config, log zerolog.Logger, out io.Writer) (*sidecar, error) {
	server, err := proxy.NewMeasured(cfg, log)
	if err != nil {
		return nil, err
	}
	s := &sidecar{server: server, sharer: server.Sharer(), ended: make(chan error, 1), reports: make(chan proxy.Report, 1)}
	if err := s.serve(cfg); err != nil {
		return nil, errors.Join(err, s.sharer.Close())
	}
	if err := s.ready(ctx, out); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// serve has the sidecar listen for the clients that measure, and for questions.
func (s *sidecar) serve(cfg *configs.Config) error {
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	s.url, s.admin = "http://"+ln.Addr().String(), "http://"+admin.Addr().String()
	s.sharer.Observe(s.observe)
	go func() { s.ended <- s.server.Serve(ln, admin) }()
	return nil
}

// ready waits until the sidecar shares. A backend that it tried out and cannot share
// with is an error at once, since every figure would be of cold runs.
func (s *sidecar) ready(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for told := time.Now(); ; {
		waiting := s.unsettled(ctx) // before the outcome, which is then the last word
		why := s.sharer.Ready()
		switch {
		case why == nil:
			return nil
		case waiting == nil || ctx.Err() != nil:
			return fmt.Errorf("the sidecar cannot share with this backend: %w", why)
		case time.Since(told) >= tellEvery:
			told = time.Now()
			fmt.Fprintf(out, "waiting: %v\n", waiting)
		}
		select {
		case <-ctx.Done():
		case <-time.After(readyPoll):
		}
	}
}

// unsettled is what the sidecar says that it waits for; nil once it tried out the
// backend, whatever came of that.
func (s *sidecar) unsettled(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.admin+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	said, err := io.ReadAll(io.LimitReader(res.Body, maxFault))
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(said)))
	}
	return err
}

// observe keeps the newest report; requests come one after the other.
func (s *sidecar) observe(r proxy.Report) {
	s.drop()
	s.reports <- r
}

func (s *sidecar) drop() {
	select {
	case <-s.reports:
	default:
	}
}

// last waits until the sidecar is through with everything, captures included, and
// returns what it did with the last generation request.
func (s *sidecar) last(ctx context.Context) (proxy.Report, error) {
	var r proxy.Report
	select {
	case r = <-s.reports:
	case <-ctx.Done():
		return r, ctx.Err()
	case <-time.After(reportTime):
		return r, errors.New("the sidecar reported nothing of the request")
	}
	return r, s.sharer.Drain(ctx)
}

// forget leaves nothing of one run to the next: it drops the references that were made here
// and empties the backend's slots.
func (s *sidecar) forget(ctx context.Context) error {
	err := s.sharer.Forget(ctx)
	s.drop() // of requests that nobody asked a report of
	return err
}

// leave is forget at the end, however that came; the backend may no longer answer.
func (s *sidecar) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return s.forget(ctx)
}

func (s *sidecar) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return errors.Join(s.server.Shutdown(ctx), <-s.ended)
}
