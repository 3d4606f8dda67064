package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/launch"
	"github.com/semsharekv/semsharekv/proxy"
)

// agentLibrary is looked for beside the program and given to the server that
// serve starts.
const agentLibrary = "libsemshare-agent.so"

// What --agent may be instead of a file.
const (
	agentAuto = "auto"
	agentOff  = "off"
)

// besideOptions are what serve needs to start the server itself.
type besideOptions struct {
	settings *settings
	command  []string
	// agent is auto, off, or the path of the agent library.
	agent string
	// check only checks what is given, and says so to out.
	check bool
	out   io.Writer
}

// beside starts a llama-server and runs the sidecar where the user meant the
// server to be. Both end together: first the requests, then the server.
func beside(ctx context.Context, o besideOptions) error {
	c := &launch.Command{Args: o.command, Env: os.Environ()}
	slots, put, err := arrange(c, &o)
	if err != nil {
		return err
	}
	if o.check {
		return checked(o.settings.file, func(cfg *configs.Config) { put(cfg, cmp.Or(slots, unusedDir)) }, o.out)
	}
	slots, dir, err := makeSlots(slots)
	if dir != nil {
		defer dir.Remove() // a tmpfs that is gone is as good
	}
	if err != nil {
		return err
	}
	c.Share(slots)
	most, err := budgetOf(slots)
	if err != nil {
		return err
	}
	w, err := configs.NewWatcher(o.settings.file, func(cfg *configs.Config) {
		put(cfg, slots)
		cfg.Store.Budget = min(cfg.Store.Budget, most)
	})
	if err != nil {
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

// arrange changes the command to run behind the sidecar. It returns the slot directory
// that was named, if one was, and what the sidecar's configuration must be for all that.
// Nothing is made yet.
func arrange(c *launch.Command, o *besideOptions) (slots string, put func(cfg *configs.Config, slots string), err error) {
	listen := o.settings.given("listen")
	if err := c.Check(listen); err != nil {
		return "", nil, err
	}
	given, err := o.settings.preview()
	if err != nil {
		return "", nil, err
	}
	if slots, err = namedSlots(c, given); err != nil {
		return "", nil, err
	}
	key, err := c.APIKey()
	if err != nil {
		return "", nil, err
	}
	place, err := c.Move()
	if err != nil {
		return "", nil, err
	}
	if err := preload(c, o.agent); err != nil {
		return "", nil, err
	}
	if o.settings.file != "" { // which may keep tenants apart, if not now then once it is reloaded
		c.Separate()
	}
	return slots, func(cfg *configs.Config, slots string) {
		o.settings.override(cfg)
		cfg.Backend.URL, cfg.Backend.SlotDir = place.URL, slots
		cfg.Backend.APIKey = cmp.Or(cfg.Backend.APIKey, key)
		if !listen {
			cfg.Listen = place.Listen
		}
	}, c.Find()
}

// namedSlots is the slot directory that configuration or command name, or "".
func namedSlots(c *launch.Command, given *configs.Config) (string, error) {
	own, slots := given.Backend.SlotDir, c.SlotDir()
	if own != "" && slots != "" && filepath.Clean(own) != filepath.Clean(slots) {
		return "", fmt.Errorf("the slot directory is %s, but the server is given --slot-save-path %s: leave out one of them", own, slots)
	}
	return cmp.Or(own, slots), nil
}

// makeSlots makes the slot directory that was named, or else a private one, which is
// returned even with an error.
func makeSlots(named string) (path string, dir *launch.SlotDir, err error) {
	if named == "" {
		if dir, err = launch.NewSlotDir(); err != nil {
			return "", nil, err
		}
		named = dir.Path
	}
	if path, err = filepath.Abs(named); err != nil {
		return "", dir, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", dir, fmt.Errorf("cannot make the slot directory: %w", err)
	}
	return path, dir, nil
}

// budgetOf is how much references may take of a slot directory: three quarters of its room,
// what they take already among it. Composed states come on top.
func budgetOf(slots string) (int64, error) {
	room, _, err := launch.Room(slots)
	return max(1, (room+bridge.ReferenceBytes(slots))/4*3), err
}

// preload adds the agent where there is one.
func preload(c *launch.Command, agent string) error {
	switch agent {
	case agentOff:
		return nil
	case agentAuto:
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
		server.Ended = func() { s.Sharer().Doubt("the server ended") }
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
