package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/doctor"
)

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor --backend URL --slot-dir DIR",
		Short: "Check everything that sharing depends on, and say what to do",
		Long: "Checks the program's own files, the slot directory, the backend, its model and the\n" +
			"index, and prints for each whether it is ok, worth a warning or wrong, and what to\n" +
			"do. The exit status is 1 where something is wrong.\n\n" +
			"The probe prefills, saves and restores a short prompt in two of the backend's slots, if\n" +
			"possible idle ones that hold little, which are empty then; --no-probe leaves it out.",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd.Flags(), "backend", "api-key-env", "slot-dir", "listen", "admin", "model", "redis", "budget", "library")
	asJSON := cmd.Flags().Bool("json", false, "print the findings as JSON")
	noProbe := cmd.Flags().Bool("no-probe", false, "do not try out saving and restoring")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := configs.Load(s.file, s.override)
		found := faults(err)
		if err == nil {
			found = append(found, doctor.Program(cfg.Backend.Library, agentBeside())...)
			found = append(found, doctor.Examine(cmd.Context(), cfg, !*noProbe)...)
		} else {
			found = append(found, doctor.Program("", agentBeside())...)
		}
		show := found.Print
		if *asJSON {
			show = found.JSON
		}
		if err := show(cmd.OutOrStdout()); err != nil {
			return err
		}
		if n := found.Count(doctor.Wrong); n > 0 {
			return fmt.Errorf("%d of %d checks found something wrong", n, len(found))
		}
		return nil
	}
	return cmd
}

// faults are what is wrong with the configuration, one finding each.
func faults(err error) doctor.Findings {
	const check = "configuration"
	var es configs.Errors
	switch {
	case err == nil:
		return doctor.Findings{{Check: check, Level: doctor.OK, Found: "valid"}}
	case !errors.As(err, &es):
		return doctor.Findings{{Check: check, Level: doctor.Wrong, Found: err.Error(), Advice: "name a file that can be read with --config"}}
	}
	var all doctor.Findings
	for _, e := range es {
		all = append(all, doctor.Finding{Check: check, Level: doctor.Wrong, Found: e.Error(), Advice: "see README, Options; nothing else was checked of what it names"})
	}
	return all
}

// agentBeside is where the agent library would be.
func agentBeside() string {
	program, err := os.Executable()
	if err != nil {
		return agentLibrary
	}
	return filepath.Join(filepath.Dir(program), agentLibrary)
}
