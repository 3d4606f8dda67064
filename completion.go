package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semsharekv/semsharekv/configs"
)

// completions are the values that a shell offers for a flag, on whichever command
// it is.
var completions = map[string]cobra.CompletionFunc{
	"reuse":      words(configs.Reuses...),
	"unrepaired": words(string(configs.UnrepairedCold), string(configs.UnrepairedAccept)),
	"way":        words(configs.Ways...),
	"log-level":  words(configs.LogLevels...),
	"log-format": words("json", "console"),
	"config":     files("yaml", "yml"),
	"model":      files("gguf"),
	"library":    files("so"),
	"agent":      files("so"),
	"pairs":      files("jsonl"),
	"slot-dir":   directories,
	"out":        directories,
	"backend":    nothing,
	"listen":     nothing,
	"admin":      nothing,
	"redis":      nothing,
}

func words(all ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(all, cobra.ShellCompDirectiveNoFileComp)
}

func files(extensions ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(extensions, cobra.ShellCompDirectiveFilterFileExt)
}

func directories(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveFilterDirs
}

func nothing(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeFlags tells a command's shell completion what its flags take.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if c := completions[f.Name]; c != nil {
			if err := cmd.RegisterFlagCompletionFunc(f.Name, c); err != nil {
				panic(err) // a flag that was just visited
			}
		}
	})
}
