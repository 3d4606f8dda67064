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

	"github.com/semsharekv/semsharekv/proxy"
)

//go:embed pairs/tuning.jsonl
var shippedPairs []byte

// attendedShares go from half of the speed on documents in another order to a quarter.
var attendedShares = []float64{.04, .08, .16}

// levels are tried from the least to the most computed: first what a plan may leave out,
// then the plan, then what an answer attends to in passages whose context changed,
// then what deviates besides. The deviations are those between which, in
// the models measured, the share goes from a few tokens to the most allowed.
func levels() []proxy.Level {
	var out []proxy.Level
	for _, o := range []proxy.LeftOut{{Seams: 1, Followers: true}, {Seams: .75, Near: true}, {Seams: 1}, {Seams: .75}, {Seams: .5}, {}} {
		out = append(out, proxy.Level{LeftOut: o})
	}
	for _, share := range attendedShares {
		out = append(out, proxy.Level{Attended: share})
	}
	for _, deviation := range []float64{.0015, .0006, .0001} {
		out = append(out, proxy.Level{MinDeviation: deviation, MostFirst: .6, MostLast: .2})
	}
	return out
}

// Calibrate measures on pairs, by default the shipped ones, what each level of
// computing by deviation costs and buys, and stores it with the model's key in
// the slot directory. What it found goes to w.
func Calibrate(ctx context.Context, o Options, w io.Writer) error {
	pairs, err := calibrationPairs(&o)
	if err != nil {
		return err
	}
	tried := levels()
	m, end, err := start(ctx, &o)
	if err != nil {
		return err
	}
	for i := range tried {
		m.frontier = append(m.frontier, variant{fmt.Sprint(i), proxy.Trial{Level: &tried[i]}})
	}
	report, err := m.runAll(ctx, pairs, o)
	if err == nil {
		err = m.calibrate(report.Pairs, tried, w)
	}
	return errors.Join(err, m.sidecar.forget(context.WithoutCancel(ctx)), end())
}

// calibrate reckons the levels from the trials and stores them.
func (m *bench) calibrate(results []Result, tried []proxy.Level, w io.Writer) error {
	c := &proxy.Calibration{Created: time.Now().UTC().Truncate(time.Second), Levels: tried}
	for i := range results {
		if complete(results[i].Frontier, len(tried)) {
			c.Pairs++
			continue
		}
		results[i].Frontier = nil // levels are compared on the same pairs
	}
	if c.Pairs < 2 {
		return fmt.Errorf("%d of %d pairs could be shared at every level: at least 2 are needed", c.Pairs, len(results))
	}
	fmt.Fprintf(w, "%d pairs\n%-44s  computed %%  KL mean   standard error\n", c.Pairs, "")
	for i := range tried {
		l := &tried[i]
		l.KL, l.KLError = meanAndError(results, func(t []Trial) float64 { return t[i].KLMean })
		l.Work, _ = meanAndError(results, func(t []Trial) float64 { return t[i].Work })
		fmt.Fprintf(w, "%-44s  %10.1f  %.5f   %.5f\n", levelName(l), 100*l.Work, l.KL, l.KLError)
	}
	slices.SortStableFunc(c.Levels, func(a, b proxy.Level) int { return cmp.Compare(a.Work, b.Work) })
	return m.sidecar.sharer.Calibrate(c)
}

func levelName(l *proxy.Level) string {
	var parts []string
	if l.Seams > 0 {
		parts = append(parts, fmt.Sprintf("%g of each seam left out", l.Seams))
	}
	if l.Followers {
		parts = append(parts, "no followers")
	}
	if l.Near {
		parts = append(parts, "near taken over")
	}
	if l.Attended > 0 {
		parts = append(parts, fmt.Sprintf("%g attended to", l.Attended))
	}
	if l.MostFirst > 0 {
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

// meanAndError is over the pairs with trials; the error is that of the mean.
func meanAndError(results []Result, of func([]Trial) float64) (mean, standardError float64) {
	n, sum, squares := 0.0, 0.0, 0.0
	for i := range results {
		if t := results[i].Frontier; t != nil {
			x := of(t)
			n, sum, squares = n+1, sum+x, squares+x*x
		}
	}
	mean = sum / n
	return mean, math.Sqrt(max(0, squares-n*mean*mean) / (n - 1) / n)
}

// calibrationPairs are the first of each group in turn, as many as the limit says.
// Pairs that are meant to stay cold have nothing to tell.
func calibrationPairs(o *Options) ([]Pair, error) {
	read := func() ([]Pair, error) { return ReadPairs(o.Pairs) }
	if o.Pairs == "" {
		read = func() ([]Pair, error) { return readPairs("the shipped pairs", bytes.NewReader(shippedPairs)) }
	}
	pairs, err := read()
	pairs = slices.DeleteFunc(pairs, func(p Pair) bool { return p.Group == unrelated })
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
