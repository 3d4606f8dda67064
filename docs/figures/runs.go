package main

import "github.com/semsharekv/semsharekv/eval"

// run is what was measured of one model in one way of filling slots.
type run struct {
	model, way string
	pairs      []eval.Result
}

// readRuns reads the published runs with default settings; dir holds their reports.
func readRuns(dir string) ([]run, error) {
	var runs []run
	for _, p := range eval.AllPublished() {
		if p.Settings != "" {
			continue
		}
		pairs, err := p.Pairs(dir)
		if err != nil {
			return nil, err
		}
		runs = append(runs, run{p.Model, p.Way, pairs})
	}
	return runs, nil
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
