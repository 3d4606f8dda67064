package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/semsharekv/semsharekv/eval"
	"github.com/semsharekv/semsharekv/launch"
)

func calibrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "calibrate --backend URL --slot-dir DIR",
		Short: "Measure what recomputing buys with this model, for quality.kl to go by",
		Long: "Measure, on pairs of prompts, what leaving out and what recomputing more tokens buys and costs with the model that the backend has,\n" +
			"and store it in the slot directory: a serve started after it turns quality.kl into the share that each request needs.\n" +
			"The backend must have the agent, and do nothing else meanwhile: its slots are emptied. What a serve keeps in the slot directory stays.\n" +
			"Plans are made by the built-in defaults, whatever the configuration says of seam, agent_followers, critical_followers, critical and unrepaired;\n" +
			"routes are left out, and retention is 1.",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd.Flags(), "backend", "api-key-env", "slot-dir", "budget", "model", "library")
	var o eval.Options
	cmd.Flags().StringVar(&o.Pairs, "pairs", "", "JSONL `FILE` of pairs; default: those shipped")
	cmd.Flags().IntVar(&o.AnswerTokens, "answer-tokens", 32, "answer positions that are compared")
	cmd.Flags().StringVar(&o.Out, "out", "", "`FOLDER` for a report of what was measured of each pair; default: none is written")
	cmd.Flags().IntVar(&o.Limit, "limit", 15, "how many pairs to use, of each group in turn; 0 means all")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := s.measured()
		if err != nil {
			return err
		}
		if launch.Private(c.Backend.SlotDir) {
			fmt.Fprintf(cmd.ErrOrStderr(), "semsharekv: %s goes when its serve ends, and the calibration with it: give serve a --slot-dir, and calibrate there\n", c.Backend.SlotDir)
		}
		c.Backend.Way = "agent"
		o.Config = c
		return eval.Calibrate(cmd.Context(), o, cmd.OutOrStdout())
	}
	return cmd
}
