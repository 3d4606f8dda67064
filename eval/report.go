package eval

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Result is what was measured of one pair. With Error set the other figures
// are not to be used.
type Result struct {
	ID     string `json:"id"`
	Group  string `json:"group"`
	Tokens int    `json:"tokens"` // of the target's prompt, template included
	// Similarity, Decision and Reason are the sidecar's own.
	Similarity float64 `json:"similarity"`
	Decision   string  `json:"decision"`
	Reason     string  `json:"reason"`
	Reused     float64 `json:"reused"`     // share of the prompt's tokens
	Recomputed float64 `json:"recomputed"` // share of the prompt's tokens
	Displaced  float64 `json:"displaced"`  // share of them that stands in another context than in the reference
	TTFTCold   float64 `json:"ttft_cold_ms"`
	TTFTShared float64 `json:"ttft_shared_ms"`
	Speedup    float64 `json:"speedup"` // cold over shared TTFT
	Repeats    int     `json:"repeats"` // of which each TTFT is the median
	Match      float64 `json:"match_ms"`
	Compose    float64 `json:"compose_ms"`
	Inject     float64 `json:"inject_ms"`
	KLMean     float64 `json:"kl_mean"` // nats
	KLMax      float64 `json:"kl_max"`  // nats
	Top1       float64 `json:"top1"`
	NLLDelta   float64 `json:"nll_delta"` // nats a token
	RougeL     float64 `json:"rouge_l"`
	// Cells of the prompt in the live KV cache.
	CellsCold   int `json:"kv_cells_cold"`
	CellsShared int `json:"kv_cells_shared"`

	// KL at each answer position, nats.
	KL           []float64 `json:"kl,omitempty"`
	SameAnswer   bool      `json:"same_answer"`
	AnswerCold   string    `json:"answer_cold"`
	AnswerShared string    `json:"answer_shared"`
	Expected     string    `json:"answer,omitempty"`
	Error        string    `json:"error,omitempty"`

	// Ablations and Trials (of the frontier, or of the levels of a calibration) are there if
	// the run asked for them and the target was shared.
	Ablations []Trial `json:"ablations,omitempty"`
	Trials    []Trial `json:"frontier,omitempty"`

	tokens *tokenView
}

// Report is report.json.
type Report struct {
	Summary Summary  `json:"summary"`
	Pairs   []Result `json:"pairs"`
}

// Summary says what was measured where, and the outcome by group.
type Summary struct {
	Created  time.Time `json:"created"`
	Machine  Machine   `json:"machine"`
	Backend  Model     `json:"backend"`
	Settings Settings  `json:"settings"`
	Seconds  float64   `json:"seconds"` // the whole run
	// Complete is false where the run was broken off.
	Complete bool              `json:"complete"`
	Groups   map[string]*Group `json:"groups"`
	// Order lists the groups as the pairs file has them.
	Order []string `json:"order"`
	// Ablations and Frontier are the trials over all pairs.
	Ablations []TrialSummary `json:"ablations,omitempty"`
	Frontier  []TrialSummary `json:"frontier,omitempty"`
}

// Settings are those of the run that bear on its outcome.
type Settings struct {
	Pairs         string   `json:"pairs"`
	AnswerTokens  int      `json:"answer_tokens"`
	Unrepaired    string   `json:"unrepaired"`
	MinSimilarity float64  `json:"min_similarity"`
	MinTokens     int      `json:"min_tokens"`
	Critical      []string `json:"critical"`
	Followers     int      `json:"followers"`
	AfterCritical int      `json:"critical_followers"`
	Seam          int      `json:"seam"`
	References    int      `json:"references"`
	Threads       int      `json:"threads"`
	// The agent's. Shares and the target are left out where they are 0, so nothing was
	// asked for; a retention of 1 is all cells.
	AgentFollowers  int     `json:"agent_followers"`
	AgentShareFirst float64 `json:"agent_share_first,omitempty"`
	AgentShareLast  float64 `json:"agent_share_last,omitempty"`
	AgentAttended   float64 `json:"agent_attended,omitempty"`
	Retention       float64 `json:"retention,omitempty"`
	QualityKL       float64 `json:"quality_kl,omitempty"`
}

// noFigures says why the report has none; nil where it has some.
func (r *Report) noFigures() error {
	if len(r.Pairs) == 0 {
		return errors.New("no pair was measured")
	}
	if slices.ContainsFunc(r.Pairs, func(p Result) bool { return p.Error == "" }) {
		return nil
	}
	return fmt.Errorf("none of the %d pairs could be measured; the first says: %s", len(r.Pairs), r.Pairs[0].Error)
}

// reportFiles are those of a report.
var reportFiles = []string{"report.json", "report.html"}

func (r *Report) write(out *output) error {
	page, err := r.html()
	if err != nil {
		err = fmt.Errorf("report.html: %w", err)
	} else {
		err = out.write("report.html", page)
	}
	return errors.Join(out.writeJSON("report.json", r), err)
}

// readReport reads the report.json of the folder.
func readReport(dir string) (*Report, error) {
	file := filepath.Join(dir, "report.json")
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &r, nil
}
