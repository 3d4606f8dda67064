package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/proxy"
)

// pollEvery is how often the configuration file is looked at.
const pollEvery = 2 * time.Second

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve {--backend URL --slot-dir DIR | -- llama-server ARGUMENT...}",
		Short: "Run the sidecar in front of a llama-server",
		Long: "Runs the sidecar in front of a llama-server that was started with\n" +
			"--slot-save-path DIR. Clients talk to the sidecar as to the server itself.\n\n" +
			"With a server's command line behind --, starts the server itself: the sidecar\n" +
			"listens where the server would have (its --host and --port), the server goes to a\n" +
			"port of its own and is given a private slot directory in memory. It is restarted\n" +
			"when it ends, and both end together.",
		Example: "  semsharekv serve --backend http://127.0.0.1:8081 --slot-dir /dev/shm/slots\n" +
			"  semsharekv serve -- llama-server -m model.gguf -c 32768 -np 4 --port 8080",
		Args: serveArgs,
	}
	cmd.SetFlagErrorFunc(serveFlagError)
	s := addSettings(cmd.Flags(), "backend", "api-key-env", "slot-dir", "listen", "admin", "model", "redis", "budget", "reuse",
		"min-similarity", "min-tokens", "way", "unrepaired", "retention", "quality-kl", "library", "log-level", "log-format")
	check := cmd.Flags().Bool("check", false, "only check the configuration")
	agent := cmd.Flags().String("agent", agentAuto, "agent library for the server that is started: `FILE`, off, or auto for the one beside the program")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return beside(cmd.Context(), besideOptions{settings: s, command: args, agent: *agent, check: *check, out: cmd.OutOrStdout()})
		}
		if *agent != agentAuto && *agent != agentOff {
			return fmt.Errorf("--agent %s has no effect without a server's command behind --; start your llama-server with LD_PRELOAD=%s", *agent, *agent)
		}
		if *check {
			return checked(s.file, s.override, cmd.OutOrStdout())
		}
		w, err := configs.NewWatcher(s.file, s.override)
		if err != nil {
			return err
		}
		return serve(cmd.Context(), w, nil)
	}
	return cmd
}

// checked says that the configuration is valid, or returns what is wrong with it.
func checked(file string, override func(*configs.Config), out io.Writer) error {
	if _, err := configs.Load(file, override); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "the configuration is valid")
	return err
}

// serveArgs takes arguments only behind --: they are the server's command.
func serveArgs(cmd *cobra.Command, args []string) error {
	if at := cmd.ArgsLenAtDash(); len(args) > 0 && at != 0 {
		return fmt.Errorf("unexpected argument %q: %s", args[0], behindDashes)
	}
	return nil
}

const behindDashes = "a server's command goes behind --, as in: serve -- llama-server -m model.gguf"

// serveFlagError takes a flag behind an argument for one of the server's.
func serveFlagError(cmd *cobra.Command, err error) error {
	err = flagError(cmd, err)
	if cmd.Flags().NArg() > 0 {
		err = fmt.Errorf("%w: %s", err, behindDashes)
	}
	return err
}

// serve runs the sidecar until the context ends, then drains. begin, where given,
// is called once the sidecar has its addresses and before it takes requests.
func serve(ctx context.Context, w *configs.Watcher, begin func(*proxy.Server)) error {
	cfg := w.Current()
	log := newLog(cfg.Log)
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("cannot listen for clients: %w", err)
	}
	defer ln.Close()
	admin, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return fmt.Errorf("cannot listen for the admin side: %w", err)
	}
	defer admin.Close()
	s, err := proxy.New(cfg, log)
	if err != nil {
		return err
	}

	if begin != nil {
		begin(s)
	}
	run, stop := context.WithCancel(context.Background())
	defer stop()
	go watch(run, w, s, log)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(ln, admin) }()
	log.Info().Str("version", version()).Stringer("listen", ln.Addr()).Stringer("admin", admin.Addr()).
		Str("backend", cfg.Backend.URL).Msg("serving")

	select {
	case err := <-failed:
		return fmt.Errorf("serving ended: %w", err)
	case <-ctx.Done():
	}
	return drain(s, w.Current().Limits.Drain, log)
}

// drain lets requests in flight end.
func drain(s *proxy.Server, limit time.Duration, log zerolog.Logger) error {
	log.Info().Dur("limit", limit).Msg("draining")
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		return fmt.Errorf("not all requests ended within %v: %w", limit, err)
	}
	log.Info().Msg("stopped")
	return nil
}

// watch reloads the configuration until the context ends.
func watch(ctx context.Context, w *configs.Watcher, s *proxy.Server, log zerolog.Logger) {
	start := w.Current()
	w.Changed = func(c *configs.Config) {
		setLevel(c.Log)
		s.Reload(c)
		if names := start.RestartNeeded(c); names != nil {
			log.Warn().Strs("options", names).Msg("configuration reloaded; these take effect at the next start")
			return
		}
		log.Info().Msg("configuration reloaded")
	}
	w.Failed = func(err error) {
		s.ReloadFailed()
		log.Error().Err(err).Msg("the new configuration is not valid; the last good one stays")
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	w.Run(ctx, pollEvery, hup)
}

func newLog(c configs.Log) zerolog.Logger {
	setLevel(c)
	zerolog.TimeFieldFormat = time.RFC3339Nano
	if c.Format == "console" {
		return zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly, NoColor: !isTerminal(os.Stderr)}).With().Timestamp().Logger()
	}
	return zerolog.New(os.Stderr).With().Timestamp().Logger()
}

// isTerminal tells whether escapes for colours are understood where a file leads.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// setLevel applies to all loggers, so that it can change while they are in use.
func setLevel(c configs.Log) {
	level, err := zerolog.ParseLevel(c.Level)
	if err != nil {
		level = zerolog.InfoLevel // cannot be: the configuration is validated
	}
	zerolog.SetGlobalLevel(level)
}
