// Semsharekv is a sidecar for llama-server: prompts that resemble earlier ones
// are answered sooner, because the KV cache of the earlier ones is rearranged to
// fit. This package is the command line only, one file a command.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/semsharekv/semsharekv/configs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; the second ends the process.
	context.AfterFunc(ctx, stop)
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, explain(err))
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "semsharekv",
		Short:         "Answers prompts that resemble earlier ones sooner, by sharing their KV cache",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serveCommand(), evalCommand(), calibrateCommand(), doctorCommand(), inspectCommand(), injectCommand(), versionCommand())
	root.SetFlagErrorFunc(flagError)
	for _, cmd := range root.Commands() {
		completeFlags(cmd)
	}
	refuseUnknown(root)
	return root
}

func explain(err error) string {
	var es configs.Errors
	if errors.As(err, &es) {
		return "semsharekv: the configuration is not valid:\n" + es.Error()
	}
	return "semsharekv: " + err.Error()
}
