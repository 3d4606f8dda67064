package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/semsharekv/semsharekv/eval"
)

// run is what was measured of one model in one way of filling slots.
type run struct {
	model, way string
	pairs      []eval.Result
}

// measured are the runs that are drawn; the reports of one run are joined, and a pair
// counts as it was run last.
var measured = []struct {
	model, way string
	reports    []string
}{
	{"SmolLM2-135M", slotWay, []string{"smollm2-135m", "smollm2-135m-more", "smollm2-135m-seams", "smollm2-135m-near"}},
	{"SmolLM2-135M", agentWay, []string{"smollm2-135m-agent-seams", "smollm2-135m-agent-near"}},
	{"Qwen2.5-Coder-0.5B", slotWay, []string{"qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-more", "qwen2.5-coder-0.5b-seams", "qwen2.5-coder-0.5b-near"}},
	{"Qwen2.5-Coder-0.5B", agentWay, []string{"qwen2.5-coder-0.5b-agent-seams", "qwen2.5-coder-0.5b-agent-near"}},
}

const (
	slotWay  = "slot"
	agentWay = "agent"
)

func readRuns(dir string) ([]run, error) {
	var runs []run
	for _, m := range measured {
		r := run{model: m.model, way: m.way}
		for _, name := range m.reports {
			report, err := readReport(filepath.Join(dir, name, "report.json"))
			if err != nil {
				return nil, err
			}
			r.pairs = eval.Again(r.pairs, report.Pairs)
		}
		runs = append(runs, r)
	}
	return runs, nil
}

func readReport(file string) (*eval.Report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r eval.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &r, nil
}

// models are those of the runs, each once.
func models(runs []run) []string {
	var out []string
	for _, r := range runs {
		if len(out) == 0 || out[len(out)-1] != r.model {
			out = append(out, r.model)
		}
	}
	return out
}

// shared are the pairs of a group whose target was shared.
func (r *run) shared(group string) []eval.Result {
	var out []eval.Result
	for _, p := range r.pairs {
		if p.Group == group && p.Decision == "shared" && p.Error == "" {
			out = append(out, p)
		}
	}
	return out
}

// pair is the result of one pair, nil where it was not measured.
func (r *run) pair(id string) *eval.Result {
	for i := range r.pairs {
		if r.pairs[i].ID == id && r.pairs[i].Error == "" {
			return &r.pairs[i]
		}
	}
	return nil
}
