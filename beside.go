package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/launch"
	"github.com/semsharekv/semsharekv/proxy"
)

// agentLibrary is looked for beside the program and given to the server that
// serve starts.
const agentLibrary = "libsemshare-agent.so"

// besideOptions are what serve needs to start the server itself.
type besideOptions struct {
	settings *settings
	command  []string
	// agent is auto, off, or the path of the agent library.
	agent string
	check bool
}

// beside starts a llama-server and runs the sidecar where the user meant the
// server to be. Both end together: first the requests, then the server.
func beside(ctx context.Context, o besideOptions) error {
	c := &launch.Command{Args: o.command, Env: os.Environ()}
	if err := c.Check(); err != nil {
		return err
	}
	given, err := o.settings.preview()
	if err != nil {
		return err
	}
	put, dir, err := arrange(c, given, o.agent)
	if dir != nil {
		defer dir.Remove() //nolint:errcheck // a tmpfs that is gone is as good
	}
	if err != nil {
		return err
	}
	w, err := configs.NewWatcher(o.settings.file, func(cfg *configs.Config) {
		o.settings.override(cfg)
		put(cfg)
	})
	if err != nil || o.check {
		return err
	}
	log := newLog(w.Current().Log)
	log.Info().Str("slot_dir", w.Current().Backend.SlotDir).Int64("budget_bytes", w.Current().Store.Budget).Msg("slot directory")
	if dir != nil && !dir.Memory {
		log.Warn().Str("slot_dir", dir.Path).Msg("no memory for slots: references are kept on a disk, which is slower; give /dev/shm more room (docker run --shm-size)")
	}
	server := &launch.Server{Command: c, URL: w.Current().Backend.URL, Log: log}
	return together(ctx, w, server, log)
}

// arrange changes the command to run behind the sidecar and returns what the
// sidecar's configuration must be for that. A directory that was made is
// returned even with an error.
func arrange(c *launch.Command, given *configs.Config, agent string) (put func(*configs.Config), dir *launch.SlotDir, err error) {
	key, err := c.APIKey()
	if err != nil {
		return nil, nil, err
	}
	place, err := c.Move()
	if err != nil {
		return nil, nil, err
	}
	slots := c.SlotDir()
	switch own := given.Backend.SlotDir; {
	case own != "" && slots != "" && filepath.Clean(own) != filepath.Clean(slots):
		return nil, nil, fmt.Errorf("the slot directory is %s, but the server is given --slot-save-path %s: leave out one of them", own, slots)
	case own != "":
		slots = own
	case slots == "":
		if dir, err = launch.NewSlotDir(); err != nil {
			return nil, nil, err
		}
		slots = dir.Path
	}
	if slots, err = filepath.Abs(slots); err != nil {
		return nil, dir, err
	}
	if err := os.MkdirAll(slots, 0o700); err != nil {
		return nil, dir, fmt.Errorf("cannot make the slot directory: %w", err)
	}
	c.Share(slots)
	if err := preload(c, agent); err != nil {
		return nil, dir, err
	}
	standard := configs.Default().Listen
	return func(cfg *configs.Config) {
		cfg.Backend.URL, cfg.Backend.SlotDir = place.URL, slots
		cfg.Backend.APIKey = cmp.Or(cfg.Backend.APIKey, key)
		if cfg.Listen == standard {
			cfg.Listen = place.Listen
		}
		if dir != nil {
			cfg.Store.Budget = min(cfg.Store.Budget, dir.Room/4*3) // composed states come on top
		}
	}, dir, nil
}

// preload adds the agent where there is one.
func preload(c *launch.Command, agent string) error {
	switch agent {
	case "off":
		return nil
	case "auto":
		if err := c.Preload(agentBeside()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := c.Preload(agent); err != nil {
		return fmt.Errorf("cannot give the agent to the server: %w", err)
	}
	return nil
}

// together runs server and sidecar until ctx ends or the server cannot be
// started. A second signal kills the server and what runs.
func together(ctx context.Context, w *configs.Watcher, server *launch.Server, log zerolog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	launched := false
	begin := func(s *proxy.Server) {
		server.Ready = func(restarts int) {
			if restarts > 0 {
				_ = s.EmptySlots(run) // what the book says they hold is gone
			}
		}
		launched = true
		go func() {
			err := server.Run(run)
			cancel(err)
			ended <- err
		}()
	}
	defer onSecondSignal(func() {
		stop()
		server.Kill()
	})()
	err := serve(ctx, w, begin)
	stop()
	if launched {
		err = errors.Join(<-ended, err)
	}
	return err
}

// again is how long after the first signal another one is meant: what runs us
// (timeout, a shell, make) may pass the same one on twice.
const again = 500 * time.Millisecond

// onSecondSignal calls f when the process is asked to end for the second time.
// The function returned undoes it.
func onSecondSignal(f func()) func() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		var first time.Time
		for {
			select {
			case <-done:
				return
			case <-signals:
				if first.IsZero() {
					first = time.Now()
				} else if time.Since(first) > again {
					f()
				}
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
