package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// refuseUnknown makes errors of what cobra's own commands meet with their help and exit
// status 0: a topic and a shell that are not known.
func refuseUnknown(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "help":
			cmd.Args = func(_ *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("unknown command %q for %q", rest[0], found.CommandPath())
				}
				return err
			}
		case "completion":
			cmd.Args = cobra.ArbitraryArgs
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				if len(args) > 0 {
					return fmt.Errorf("no completion for %q; want one of %s", args[0], names(cmd.Commands()))
				}
				return cmd.Help()
			}
		}
	}
}

func names(commands []*cobra.Command) string {
	var all []string
	for _, c := range commands {
		all = append(all, c.Name())
	}
	return strings.Join(all, ", ")
}

// exactly wants n arguments, and says which.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("%d arguments; want %s", len(args), cmd.UseLine())
		}
		return nil
	}
}

// wanted says what a flag takes, by its type.
var wanted = map[string]string{
	"int":      "a whole number",
	"float64":  "a number",
	"bool":     "true or false",
	"duration": "a duration like 90s, 5m or 1h",
	"quantity": "a size like 4Gi or 512Mi",
}

// flagError says what a flag takes where its parser only says what it is.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) || wanted[invalid.GetFlag().Value.Type()] == "" {
		return err
	}
	f := invalid.GetFlag()
	return fmt.Errorf("--%s is %q; want %s", f.Name, invalid.GetValue(), wanted[f.Value.Type()])
}
