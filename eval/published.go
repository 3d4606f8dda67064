package eval

import (
	"cmp"
	"path/filepath"
	"slices"
)

// Published is a run whose reports are kept in eval/results, in one part or several.
type Published struct {
	Model, Way string
	Settings   string   // empty: the defaults
	Reports    []string // folders, the earliest first
}

// The ways of filling slots.
const (
	SlotWay  = "slot"
	AgentWay = "agent"
)

// AllPublished are the runs in the order in which the READMEs and the figures have them.
func AllPublished() []Published {
	const small, strong = "SmolLM2-135M", "Qwen2.5-Coder-0.5B"
	return []Published{
		{small, SlotWay, "", []string{"smollm2-135m", "smollm2-135m-more", "smollm2-135m-seams", "smollm2-135m-near", "smollm2-135m-repeated", "smollm2-135m-rest", "smollm2-135m-retrieved", "smollm2-135m-inserted", "smollm2-135m-orders"}},
		{small, AgentWay, "", []string{"smollm2-135m-agent", "smollm2-135m-agent-quality", "smollm2-135m-agent-quality-inserted", "smollm2-135m-agent-calibrated", "smollm2-135m-agent-kernels", "smollm2-135m-agent-orders"}},
		{strong, SlotWay, "", []string{"qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-more", "qwen2.5-coder-0.5b-seams", "qwen2.5-coder-0.5b-near", "qwen2.5-coder-0.5b-rest", "qwen2.5-coder-0.5b-retrieved", "qwen2.5-coder-0.5b-inserted", "qwen2.5-coder-0.5b-orders"}},
		{strong, AgentWay, "", []string{"qwen2.5-coder-0.5b-agent-unrelated", "qwen2.5-coder-0.5b-agent-calibrated", "qwen2.5-coder-0.5b-agent-kernels", "qwen2.5-coder-0.5b-agent-target", "qwen2.5-coder-0.5b-agent-orders"}},
		{small, SlotWay, "`unrepaired: accept`", []string{"smollm2-135m-accept"}},
		{small, AgentWay, "`quality.kl: 0.02`, ggml's kernels", []string{"smollm2-135m-agent", "smollm2-135m-agent-quality", "smollm2-135m-agent-quality-inserted", "smollm2-135m-agent-calibrated"}},
		{strong, AgentWay, "`quality.kl: 0.02`, ggml's kernels", []string{"qwen2.5-coder-0.5b-agent-calibrated"}},
		{small, AgentWay, "not calibrated", []string{"smollm2-135m-agent", "smollm2-135m-agent-seams", "smollm2-135m-agent-near", "smollm2-135m-agent-more", "smollm2-135m-agent-rest", "smollm2-135m-agent-passages", "smollm2-135m-agent-inserted", "smollm2-135m-agent-attended", "smollm2-135m-agent-rewritten", "smollm2-135m-agent-cache"}},
		{strong, AgentWay, "not calibrated", []string{"qwen2.5-coder-0.5b-agent", "qwen2.5-coder-0.5b-agent-seams", "qwen2.5-coder-0.5b-agent-near", "qwen2.5-coder-0.5b-agent-repeated", "qwen2.5-coder-0.5b-agent-more", "qwen2.5-coder-0.5b-agent-rest", "qwen2.5-coder-0.5b-agent-unrelated", "qwen2.5-coder-0.5b-agent-passages", "qwen2.5-coder-0.5b-agent-inserted", "qwen2.5-coder-0.5b-agent-attended", "qwen2.5-coder-0.5b-agent-rewritten", "qwen2.5-coder-0.5b-agent-edited", "qwen2.5-coder-0.5b-agent-cache"}},
		{small, AgentWay, "`retention: 0.58`", []string{"smollm2-135m-agent-retention"}},
		{strong, AgentWay, "`retention: 0.58`", []string{"qwen2.5-coder-0.5b-agent-retention", "qwen2.5-coder-0.5b-agent-retention-target"}},
	}
}

// Pairs joins the run's reports, whose folders are in dir, in order of the pairs' IDs; a
// pair counts as it was run last.
func (p *Published) Pairs(dir string) ([]Result, error) {
	var out []Result
	for _, name := range p.Reports {
		now, err := readReport(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		out = slices.DeleteFunc(out, func(b Result) bool {
			return slices.ContainsFunc(now.Pairs, func(n Result) bool { return n.ID == b.ID })
		})
		out = append(out, now.Pairs...)
	}
	slices.SortFunc(out, func(a, b Result) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}
