package eval

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/proxy"
)

// sidecar is the product itself, listening on a port of its own in process.
type sidecar struct {
	server  *proxy.Server
	sharer  *proxy.Sharer
	url     string
	ended   chan error
	reports chan proxy.Report
}

// Listen is where a sidecar that is measured listens: on a free port.
const Listen = "127.0.0.1:0"

const (
	// readyTime bounds the wait until the sidecar has probed the backend.
	readyTime = 2 * time.Minute
	readyPoll = 50 * time.Millisecond
	// reportTime bounds the wait for the report of a request that was answered.
	reportTime = 30 * time.Second
	// closeTime bounds the sidecar's end.
	closeTime = 10 * time.Second
)

func startSidecar(ctx context.Context, cfg *configs.Config, log zerolog.Logger) (*sidecar, error) {
	metrics := proxy.NewMetrics()
	sharer, err := proxy.NewSharer(cfg, log, metrics)
	if err != nil {
		return nil, err
	}
	s := &sidecar{sharer: sharer, ended: make(chan error, 1), reports: make(chan proxy.Report, 1)}
	if s.server, err = proxy.New(cfg, log, proxy.WithMetrics(metrics), proxy.WithSharer(sharer)); err != nil {
		return nil, errors.Join(err, sharer.Close())
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, errors.Join(err, sharer.Close())
	}
	s.url = "http://" + ln.Addr().String()
	sharer.Observe(s.observe)
	go func() { s.ended <- s.server.Serve(ln, nil) }()
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// ready waits until the sidecar shares; a backend that cannot be shared is an
// error, since every figure would be of cold runs.
func (s *sidecar) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		why := s.sharer.Ready()
		if why == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the sidecar cannot share with this backend: %w", why)
		case <-time.After(readyPoll):
		}
	}
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

// forget leaves nothing of one run to the next: it drops every reference and empties the
// backend's slots.
func (s *sidecar) forget(ctx context.Context) error {
	err := s.sharer.Forget(ctx)
	s.drop() // of requests that nobody asked a report of
	return err
}

func (s *sidecar) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	err := errors.Join(s.server.Shutdown(ctx), <-s.ended)
	return errors.Join(err, s.sharer.Close())
}
