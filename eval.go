package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semsharekv/semsharekv/eval"
)

func evalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "eval --backend URL --slot-dir DIR --pairs FILE.jsonl --out DIR",
		Short: "Measure speed and quality on pairs of prompts and write a report",
		Long: "Measure, on pairs of prompts, how much sooner answers start when the second draws on the first, and how far they are from unshared ones,\n" +
			"and write a report. The backend must do nothing else meanwhile: its slots are emptied. What a serve keeps in the slot directory stays.\n" +
			"All pairs are of one tenant of their own, whatever the configuration says, and its routes are left out: measured is what its defaults and the flags say.",
		Args: cobra.NoArgs,
	}
	s := addSettings(cmd.Flags(), "backend", "api-key-env", "slot-dir", "budget", "model", "library", "unrepaired", "way", "retention", "quality-kl")
	var o eval.Options
	cmd.Flags().StringVar(&o.Pairs, "pairs", "", "JSONL `FILE` of pairs")
	cmd.Flags().StringVar(&o.Out, "out", "", "`DIR` for report.json and report.html, with --other for rounding.json")
	cmd.Flags().IntVar(&o.AnswerTokens, "answer-tokens", 32, "answer positions that are compared")
	cmd.Flags().IntVar(&o.Limit, "limit", 0, "stop after so many pairs; 0 means all")
	cmd.Flags().IntVar(&o.Repeats, "repeats", 1, "runs, cold and shared in turn, of which each time is the median")
	cmd.Flags().BoolVar(&o.Ablate, "ablate", false, "also measure with one part of the agent's way left out at a time")
	cmd.Flags().BoolVar(&o.Frontier, "frontier", false, "also measure with little to much recomputed, in both ways")
	cmd.Flags().StringVar(&o.Other, "other", "", "share nothing, and compare the answers with those of the server of the same model at `URL`")
	for _, name := range []string{"pairs", "out"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := unshared(cmd.Flags()); err != nil {
			return err
		}
		c, err := s.measured()
		if err != nil {
			return err
		}
		o.Config = c
		return eval.Run(cmd.Context(), o)
	}
	return cmd
}

// unshared refuses flags that say how to share next to --other.
func unshared(flags *pflag.FlagSet) error {
	if !flags.Changed("other") {
		return nil
	}
	for _, name := range []string{"ablate", "frontier", "repeats", "way", "retention", "quality-kl", "unrepaired"} {
		if flags.Changed(name) {
			return fmt.Errorf("--%s has no effect with --other, which shares nothing: leave out one of them", name)
		}
	}
	return nil
}
