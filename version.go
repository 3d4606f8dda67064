package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/semsharekv/semsharekv/bridge"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the kernels in use",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "semsharekv %s\n%s %s/%s\nkernels: %s\n",
				version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, kernels())
		},
	}
}

func kernels() string {
	k, err := bridge.LoadKernels("")
	if err != nil {
		return fmt.Sprintf("%s (%v)", bridge.GoKernels().Name(), err)
	}
	return k.Name()
}

// release is set when packaging/release or docker/Dockerfile link.
var release string

// version is the release and the commit, as far as the build knew them.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "development"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return fmt.Sprintf("%s (commit %s)", info.Main.Version, s.Value)
		}
	}
	return info.Main.Version
}
