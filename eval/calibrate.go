package eval

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/proxy"
)

//go:embed pairs/tuning.jsonl
var shippedPairs []byte

// attendedShares go from little to where more buys hardly anything: on Qwen2.5-Coder-0.5B .16
// left .086 and .044 nats, .24 .031 and .042, .32 .027 and .042. These are two of the four
// report pairs that were looked at for it, so that what is reported of them is not of pairs
// that nothing was chosen on.
var attendedShares = []float64{.06, .12, .24}

// levels are tried from the least to the most computed: first what a plan may leave out,
// then the plan, then, where passages stand in another context, what an answer attends to
// in them, then what deviates: by .0006 of the mean square, which in the models measured
// is a tenth of a prompt where little moved and a third where much did.
func levels(displaced bool) []proxy.Level {
	var out []proxy.Level
	for _, o := range []proxy.LeftOut{{Seams: 1, Followers: true}, {Seams: .75}, {}} {
		out = append(out, proxy.Level{LeftOut: o})
	}
	if displaced {
		out = append(out, proxy.Level{LeftOut: proxy.LeftOut{Seams: .75}, Attended: attendedShares[0]})
		for _, share := range attendedShares {
			out = append(out, proxy.Level{Attended: share})
		}
	}
	return append(out, proxy.Level{MinDeviation: .0006, ShareFirst: .6, ShareLast: .2})
}

// displaced is the kind of prompt that the pair's target is.
func (r *Result) displaced() bool { return proxy.MuchDisplaced(r.Displaced) }

// levelsOf are trials of the levels of the result's kind of prompt.
func levelsOf(r *Result) []variant {
	tried := levels(r.displaced())
	var out []variant
	for i := range tried {
		out = append(out, variant{levelName(&tried[i]), proxy.Trial{Level: &tried[i]}})
	}
	return out
}

// Calibrate measures on pairs, by default the shipped ones, what each level of
// computing more or less costs and buys, and stores it with the model's key in
// the slot directory. What it found goes to w, and what it found of each pair into
// the report, if Out names a folder. It goes by asUsual of the configuration.
func Calibrate(ctx context.Context, o Options, w io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	o.Config = asUsual(*o.Config)
	pairs, err := calibrationPairs(&o)
	if err != nil {
		return err
	}
	out, err := openOutput(o.Out, reportFiles...)
	if err != nil {
		return err
	}
	defer out.close()
	m, end, err := start(ctx, &o)
	if err != nil {
		return err
	}
	m.trials = levelsOf
	report, err := m.runAll(ctx, pairs, o)
	if err == nil {
		err = m.calibrate(report.Pairs, w)
	}
	return errors.Join(err, m.publish(report, &o, out), end())
}

// asUsual has the configuration plan by the built-in defaults, whatever it says: what is
// measured governs the routes of any. Nor is anything of an earlier calibration to show, or
// what leaving cells out (retention) costs.
func asUsual(c configs.Config) *configs.Config {
	proxy.PlanAsUsual(&c.Defaults)
	c.Defaults.Quality.KL, c.Defaults.Retention = 0, 1
	return &c
}

// calibrate reckons the levels from the trials and stores them.
func (m *bench) calibrate(results []Result, w io.Writer) error {
	c := &proxy.Calibration{Created: time.Now().UTC().Truncate(time.Second)}
	for _, displaced := range []bool{false, true} {
		k := kind(results, displaced)
		describeKind(&k, w)
		if k.Pairs >= proxy.LeastPairs {
			c.Kinds = append(c.Kinds, k)
		}
	}
	if len(c.Kinds) == 0 {
		return fmt.Errorf("of %d pairs no %d of a kind could be shared at every level", len(results), proxy.LeastPairs)
	}
	return m.sidecar.sharer.Calibrate(c)
}

// kind reckons the levels of one kind of prompt, on pairs that have them all.
func kind(results []Result, displaced bool) proxy.Kind {
	k := proxy.Kind{Displaced: displaced, Levels: levels(displaced)}
	var of [][]Trial
	for i := range results {
		if r := &results[i]; r.displaced() == displaced && complete(r.Trials, len(k.Levels)) {
			of = append(of, r.Trials)
		}
	}
	k.Pairs = len(of)
	for i := range k.Levels {
		l := &k.Levels[i]
		l.KL, l.KLError = meanAndError(of, func(t []Trial) float64 { return t[i].KLMean })
		l.Work, _ = meanAndError(of, func(t []Trial) float64 { return t[i].Work })
	}
	slices.SortStableFunc(k.Levels, func(a, b proxy.Level) int { return cmp.Compare(a.Work, b.Work) })
	return k
}

func describeKind(k *proxy.Kind, w io.Writer) {
	what := "most stands where it stood"
	if k.Displaced {
		what = "much stands in another context"
	}
	if k.Pairs < proxy.LeastPairs {
		fmt.Fprintf(w, "%d pairs where %s: fewer than %d tell nothing, and such prompts have no level\n", k.Pairs, what, proxy.LeastPairs)
		return
	}
	fmt.Fprintf(w, "%d pairs where %s\n%-44s  computed %%  KL mean   standard error\n", k.Pairs, what, "")
	for i := range k.Levels {
		l := &k.Levels[i]
		fmt.Fprintf(w, "%-44s  %10.1f  %.5f   %.5f\n", levelName(l), 100*l.Work, l.KL, l.KLError)
	}
}

func levelName(l *proxy.Level) string {
	var parts []string
	if l.Seams > 0 {
		parts = append(parts, fmt.Sprintf("%g of each seam left out", l.Seams))
	}
	if l.Followers {
		parts = append(parts, "no followers")
	}
	if l.Attended > 0 {
		parts = append(parts, fmt.Sprintf("%g attended to", l.Attended))
	}
	if l.ShareFirst > 0 {
		parts = append(parts, fmt.Sprintf("what deviates by %g", l.MinDeviation))
	}
	return cmp.Or(strings.Join(parts, ", "), "as planned")
}

func complete(trials []Trial, n int) bool {
	for _, t := range trials {
		if t.Error != "" {
			return false
		}
	}
	return len(trials) == n
}

// meanAndError is over the pairs' trials; the error is that of the mean.
func meanAndError(pairs [][]Trial, of func([]Trial) float64) (mean, standardError float64) {
	n, sum, squares := float64(len(pairs)), 0.0, 0.0
	for _, t := range pairs {
		x := of(t)
		sum, squares = sum+x, squares+x*x
	}
	mean = sum / n
	return mean, math.Sqrt(max(0, squares-n*mean*mean) / (n - 1) / n)
}

// calibrationPairs are the first of each group in turn, as many as the limit says.
func calibrationPairs(o *Options) ([]Pair, error) {
	pairs, err := readCalibrationPairs(o.Pairs)
	if err != nil || o.Limit <= 0 || o.Limit >= len(pairs) {
		return pairs, err
	}
	turn := map[string]int{}
	var out []Pair
	for round := 0; len(out) < o.Limit; round++ {
		clear(turn)
		for _, p := range pairs {
			if turn[p.Group] == round && len(out) < o.Limit {
				out = append(out, p)
			}
			turn[p.Group]++
		}
	}
	return out, nil
}

// calibrating are the groups of the shipped pairs that calibrate. Pairs that differ in a
// number or a form's fields lose next to nothing at any level and would only make a target
// look easy; on the questions of sought and opinion nothing is chosen.
var calibrating = []string{"edited", "reordered", "retrieved", "releases", "synonyms"}

// readCalibrationPairs leaves out pairs that are meant to stay cold, which have nothing to
// tell, and of the shipped ones those of other groups.
func readCalibrationPairs(file string) ([]Pair, error) {
	if file == "" {
		pairs, err := readPairs("the shipped pairs", bytes.NewReader(shippedPairs))
		return slices.DeleteFunc(pairs, func(p Pair) bool { return !slices.Contains(calibrating, p.Group) }), err
	}
	pairs, err := ReadPairs(file)
	return slices.DeleteFunc(pairs, func(p Pair) bool { return p.Group == unrelated }), err
}
