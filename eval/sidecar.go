package eval

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/proxy"
)

// sidecar is the product itself, listening on a port of its own in process.
type sidecar struct {
	server *proxy.Server
	hooks  observed
	url    string
	ended  chan error

	mu   sync.Mutex
	last *proxy.Report
}

// observed is what the server offers to those who measure it.
type observed interface {
	Observe(func(proxy.Report))
	Drain(context.Context) error
	Forget(context.Context) error
}

func startSidecar(cfg *configs.Config, log zerolog.Logger) (*sidecar, error) {
	server, err := proxy.New(cfg, log)
	if err != nil {
		return nil, err
	}
	hooks, ok := any(server).(observed)
	if !ok {
		return nil, errors.New("eval: this sidecar cannot be observed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sidecar{server: server, hooks: hooks, url: "http://" + ln.Addr().String(), ended: make(chan error, 1)}
	hooks.Observe(s.observe)
	go func() { s.ended <- server.Serve(ln, nil) }()
	return s, nil
}

func (s *sidecar) observe(r proxy.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = &r
}

func (s *sidecar) URL() string { return s.url }

func (s *sidecar) Last(ctx context.Context) (proxy.Report, error) {
	if err := s.hooks.Drain(ctx); err != nil {
		return proxy.Report{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return proxy.Report{}, errors.New("the sidecar reported nothing of the request")
	}
	r := *s.last
	s.last = nil
	return r, nil
}

func (s *sidecar) Forget(ctx context.Context) error {
	s.mu.Lock()
	s.last = nil
	s.mu.Unlock()
	return s.hooks.Forget(ctx)
}

// closeTime bounds the sidecar's end.
const closeTime = 10 * time.Second

func (s *sidecar) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	return errors.Join(s.server.Shutdown(ctx), <-s.ended)
}
