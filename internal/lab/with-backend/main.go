// With-backend runs a command against a llama-server of its own: in the
// command's arguments @URL@ and @SLOTS@ stand for the server's base URL and its
// slot directory.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/semsharekv/semsharekv/internal/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := lab.BackendOptions{Progress: os.Stderr}
	flag.StringVar(&o.Model, "model", "", "GGUF `FILE`; default: the small model")
	flag.IntVar(&o.Context, "ctx-size", 24576, "tokens of all slots together")
	flag.IntVar(&o.Slots, "parallel", 3, "slots")
	flag.StringVar(&o.TypeK, "cache-type-k", "", "type of K in the cache")
	flag.StringVar(&o.TypeV, "cache-type-v", "", "type of V in the cache")
	flag.StringVar(&o.FlashAttention, "flash-attn", "auto", "on, off or auto")
	flag.BoolVar(&o.Unified, "kv-unified", false, "one stream for all slots")
	flag.StringVar(&o.Preload, "preload", "", "`LIBRARY` for LD_PRELOAD, such as bin/libsemshare-agent.so")
	flag.Parse()
	if flag.NArg() == 0 {
		return errors.New("usage: with-backend [options] COMMAND [ARGUMENT with @URL@ or @SLOTS@]")
	}
	b, err := lab.Start(ctx, o)
	if err != nil {
		return err
	}
	defer b.Close()
	fill := strings.NewReplacer("@URL@", b.URL, "@SLOTS@", b.SlotDir)
	args := flag.Args()
	for i := range args {
		args[i] = fill.Replace(args[i])
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd.Run()
}
