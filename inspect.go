package main

import (
	"github.com/spf13/cobra"

	"github.com/semsharekv/semsharekv/bridge"
)

func inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Print what is in a saved state, and whether it can be shared",
		Args:  exactly(1),
	}
	model := cmd.Flags().String("model", "", "GGUF `FILE` the state was made with, for its RoPE and its tokens")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return bridge.Inspect(cmd.OutOrStdout(), args[0], *model)
	}
	return cmd
}
