package eval

import (
	"math"
	"math/rand/v2"
	"sort"
)

// Interval is a median with its 95 % bootstrap interval, and the mean.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
	Mean   float64 `json:"mean"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Group sums up the pairs of one group, or of all.
type Group struct {
	Pairs  int `json:"pairs"`
	Errors int `json:"errors"`
	// Decisions counts pairs by what the sidecar did: shared, exact, cold.
	Decisions map[string]int `json:"decisions"`
	// SameAnswer counts pairs whose greedy answers are the same text.
	SameAnswer int `json:"same_answer"`
	// Expected counts pairs that name an answer; RightCold and RightShared how
	// many of their answers contain it.
	Expected    int `json:"expected"`
	RightCold   int `json:"right_cold"`
	RightShared int `json:"right_shared"`
	// Metrics are over the pairs without error, by field name; those of quality over the
	// ones among them that did not stay cold, where there are such.
	Metrics map[string]Interval `json:"metrics"`
}

type metric struct {
	name string
	of   func(*Result) float64
}

// metrics are the fields that are summed up.
var metrics = []metric{
	{"tokens", func(r *Result) float64 { return float64(r.Tokens) }},
	{"similarity", func(r *Result) float64 { return r.Similarity }},
	{"reused", func(r *Result) float64 { return r.Reused }},
	{"recomputed", func(r *Result) float64 { return r.Recomputed }},
	{"ttft_cold_ms", func(r *Result) float64 { return r.TTFTCold }},
	{"ttft_shared_ms", func(r *Result) float64 { return r.TTFTShared }},
	{"speedup", func(r *Result) float64 { return r.Speedup }},
	{"match_ms", func(r *Result) float64 { return r.Match }},
	{"compose_ms", func(r *Result) float64 { return r.Compose }},
	{"inject_ms", func(r *Result) float64 { return r.Inject }},
	{"kv_cells_cold", func(r *Result) float64 { return float64(r.CellsCold) }},
	{"kv_cells_shared", func(r *Result) float64 { return float64(r.CellsShared) }},
}

// qualities are summed up without pairs that stayed cold: these lose nothing, and would
// make the loss look small.
var qualities = []metric{
	{"kl_mean", func(r *Result) float64 { return r.KLMean }},
	{"kl_max", func(r *Result) float64 { return r.KLMax }},
	{"top1", func(r *Result) float64 { return r.Top1 }},
	{"nll_delta", func(r *Result) float64 { return r.NLLDelta }},
	{"rouge_l", func(r *Result) float64 { return r.RougeL }},
}

// everything is the name of the group that holds all pairs.
const everything = "all"

// groupNames returns the groups in the order in which they first occur.
func groupNames(results []Result) []string {
	var names []string
	seen := map[string]bool{}
	for _, r := range results {
		if !seen[r.Group] {
			seen[r.Group] = true
			names = append(names, r.Group)
		}
	}
	return names
}

func summarise(results []Result) map[string]*Group {
	groups := map[string]*Group{everything: sumUp(results)}
	for _, name := range groupNames(results) {
		var of []Result
		for _, r := range results {
			if r.Group == name {
				of = append(of, r)
			}
		}
		if name != everything {
			groups[name] = sumUp(of)
		}
	}
	return groups
}

func sumUp(results []Result) *Group {
	g := &Group{Pairs: len(results), Decisions: map[string]int{}, Metrics: map[string]Interval{}}
	var good []*Result
	for i := range results {
		r := &results[i]
		if r.Error != "" {
			g.Errors++
			continue
		}
		good = append(good, r)
		g.Decisions[r.Decision]++
		g.SameAnswer += count(r.SameAnswer)
		if r.Expected != "" {
			g.Expected++
			g.RightCold += count(says(r.AnswerCold, r.Expected))
			g.RightShared += count(says(r.AnswerShared, r.Expected))
		}
	}
	if len(good) == 0 {
		return g
	}
	g.add(metrics, good)
	g.add(qualities, withoutCold(good))
	return g
}

func (g *Group) add(metrics []metric, results []*Result) {
	for _, m := range metrics {
		values := make([]float64, len(results))
		for i, r := range results {
			values[i] = m.of(r)
		}
		g.Metrics[m.name] = interval(values)
	}
}

// withoutCold leaves pairs out that stayed cold, unless all did.
func withoutCold(results []*Result) []*Result {
	var out []*Result
	for _, r := range results {
		if r.Decision != "cold" {
			out = append(out, r)
		}
	}
	if out == nil {
		return results
	}
	return out
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

const (
	resamples     = 2000
	bootstrapSeed = 20250924 // any fixed value: the same results give the same report
)

// interval takes the median and, by resampling with replacement, the 2.5th and
// 97.5th percentile of the medians (percentile bootstrap, Efron 1979).
func interval(values []float64) Interval {
	sort.Float64s(values)
	out := Interval{Median: median(values), Min: values[0], Max: values[len(values)-1]}
	for _, v := range values {
		out.Mean += v / float64(len(values))
	}
	random := rand.New(rand.NewPCG(bootstrapSeed, uint64(len(values))))
	medians := make([]float64, resamples)
	sample := make([]float64, len(values))
	for i := range medians {
		for j := range sample {
			sample[j] = values[random.IntN(len(values))]
		}
		sort.Float64s(sample)
		medians[i] = median(sample)
	}
	sort.Float64s(medians)
	out.Low, out.High = percentile(medians, .025), percentile(medians, .975)
	return out
}

// median of sorted values.
func median(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// percentile of sorted values, the nearest rank.
func percentile(sorted []float64, share float64) float64 {
	return sorted[int(math.Round(share*float64(len(sorted)-1)))]
}
