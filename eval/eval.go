package eval

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"

	"github.com/semsharekv/semsharekv/configs"
)

// Options say what is measured and where the report goes.
type Options struct {
	// Config is the sidecar's configuration, complete and valid, with Measured over it.
	Config *configs.Config
	// Pairs is the JSONL file of pairs; Out the folder of report.json and
	// report.html, or of rounding.json, made when absent.
	Pairs, Out string
	// AnswerTokens is how many answer positions are compared, at least 1.
	AnswerTokens int
	// Limit stops after that many pairs; 0 means all.
	Limit int
	// Repeats is of how many runs, cold and shared in turn, each time is the median;
	// 0 means one.
	Repeats int
	// Ablate shares each target also with one part of the agent's way left out at a
	// time; Frontier with little to much recomputed, in both ways.
	Ablate, Frontier bool
	// Other is the base URL of another server of the same model. With it nothing is
	// shared: the answers of the two are compared, in rounding.json.
	Other string
	// Log takes the sidecar's own log.
	Log zerolog.Logger
	// Progress takes the progress bar; nil means standard error.
	Progress io.Writer
}

// Run measures every pair and writes the report. What is wrong with the input, or with
// the folder of the report, is reported before any work; a pair that cannot be measured is
// reported with its error, and the run goes on. When ctx ends, the report holds the pairs
// measured until then and the error is ctx's. Where none was measured an earlier report
// stays.
func Run(ctx context.Context, o Options) error {
	if err := o.check(); err != nil {
		return err
	}
	pairs, err := ReadPairs(o.Pairs)
	if err != nil {
		return err
	}
	if o.Limit > 0 && len(pairs) > o.Limit {
		pairs = pairs[:o.Limit]
	}
	if o.Other != "" {
		return runRounding(ctx, pairs, o)
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
	if o.Ablate {
		m.ablations = ablations()
	}
	if o.Frontier {
		m.trials = func(*Result) []variant { return frontier() }
	}
	report, err := m.runAll(ctx, pairs, o)
	return errors.Join(err, m.publish(report, &o, out), end())
}

// publish completes the report and writes it. One without figures is an error.
func (m *bench) publish(report *Report, o *Options, out *output) error {
	if err := report.noFigures(); err != nil {
		return err
	}
	report.Summary.Machine = thisMachine()
	model := cmp.Or(m.cfg.Backend.Model, m.props.ModelPath)
	report.Summary.Backend = describeBackend(m.props, model, fileHash(model))
	report.Summary.Settings = settings(o)
	if !m.sidecar.sharer.Calibrated() {
		report.Summary.Settings.QualityKL = 0 // there is nothing to go by
	}
	return report.write(out)
}

// start makes a bench of the backend and a sidecar of its own; end closes that, and leaves
// neither references nor filled slots behind.
func start(ctx context.Context, o *Options) (m *bench, end func() error, err error) {
	cfg := o.Config
	direct := newBackend(cfg.Backend.URL, cfg.Backend.APIKey)
	p, err := direct.props(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("the backend does not answer: %w", err)
	}
	s, err := startSidecar(ctx, cfg, o.Log, cmp.Or[io.Writer](o.Progress, os.Stderr))
	if err != nil {
		return nil, nil, err
	}
	m = &bench{cfg: cfg, props: p, direct: direct, sidecar: s, client: newBackend(s.url, cfg.Backend.APIKey), answer: o.AnswerTokens, repeats: max(1, o.Repeats)}
	return m, func() error { return errors.Join(s.leave(), s.close()) }, nil
}

// check reports what is wrong with the options.
func (o *Options) check() error {
	switch cfg := o.Config; {
	case o.Repeats < 0:
		return fmt.Errorf("%d repeats: at least 1 is needed, or 0 for one", o.Repeats)
	case o.AnswerTokens < 1:
		return fmt.Errorf("%d answer tokens: at least 1 is needed", o.AnswerTokens)
	case o.Limit < 0:
		return fmt.Errorf("a limit of %d pairs: at least 1 is needed, or 0 for all", o.Limit)
	case cfg.Backend.Way == SlotWay && cfg.Defaults.Retention < 1:
		return fmt.Errorf("a retention of %g by the slot way: only the agent leaves cells out; want 1, or another way", cfg.Defaults.Retention)
	case o.Other == "" && cfg.Defaults.Reuse != configs.ReuseFuzzy:
		return fmt.Errorf("defaults.reuse is %s, by which nothing is composed that could be measured: want fuzzy", cfg.Defaults.Reuse)
	case o.Other == "":
		return nil
	case strings.TrimRight(o.Other, "/") == strings.TrimRight(cfg.Backend.URL, "/"):
		return fmt.Errorf("the other server, %s, is the backend itself: want another one of the same model", o.Other)
	}
	if err := configs.CheckBaseURL(o.Other); err != nil {
		return fmt.Errorf("the other server: %w", err)
	}
	return nil
}

func settings(o *Options) Settings {
	d := &o.Config.Defaults
	return Settings{
		Pairs: o.Pairs, AnswerTokens: o.AnswerTokens, Unrepaired: string(d.Unrepaired),
		MinSimilarity: d.MinSimilarity, MinTokens: d.MinTokens, Critical: d.Critical, Followers: d.Followers,
		AfterCritical: d.CriticalFollowers, Seam: d.Seam, References: d.References, Threads: o.Config.Backend.Threads,
		AgentFollowers: d.AgentFollowers, AgentShareFirst: d.AgentShareFirst, AgentShareLast: d.AgentShareLast, AgentAttended: d.AgentAttended,
		Retention: d.Retention, QualityKL: d.Quality.KL,
	}
}

// runAll measures the pairs one after the other.
func (m *bench) runAll(ctx context.Context, pairs []Pair, o Options) (*Report, error) {
	start := time.Now()
	report := &Report{Summary: Summary{Created: start.UTC().Truncate(time.Second)}}
	bar := newProgress(pairs, m.repeats, o.Progress)
	err := m.warmUp(ctx)
	for i := 0; i < len(pairs) && err == nil; i++ {
		p := pairs[i]
		bar.begin(i, p)
		r := m.measure(ctx, p, bar.add)
		if err = ctx.Err(); err == nil {
			report.Pairs = append(report.Pairs, r)
			bar.end(&r)
		}
	}
	bar.finish()
	report.Summary.Complete = len(report.Pairs) == len(pairs)
	report.Summary.Seconds = time.Since(start).Seconds()
	report.Summary.Groups = summarise(report.Pairs)
	report.Summary.Order = groupNames(report.Pairs)
	report.Summary.Ablations = summariseTrials(report.Pairs, func(r *Result) []Trial { return r.Ablations })
	report.Summary.Frontier = summariseTrials(report.Pairs, func(r *Result) []Trial { return r.Trials })
	return report, err
}

// warmUp lets the model's pages and both connections be there before the first
// time is taken.
func (m *bench) warmUp(ctx context.Context) error {
	const text = "Say hello."
	if _, _, err := m.direct.chat(ctx, text, coldSlot); err != nil {
		return fmt.Errorf("the backend answers no chat: %w", err)
	}
	if _, _, err := m.client.chat(ctx, text, -1); err != nil {
		return fmt.Errorf("the sidecar answers no chat: %w", err)
	}
	_, err := m.sidecar.last(ctx)
	return err
}

// progress is the bar with the time left. Work is counted in bytes of prompt to
// prefill cold: at each repetition the reference once, the target twice.
type progress struct {
	bar   *progressbar.ProgressBar
	out   io.Writer
	lines bool // one line a pair, where nobody watches a bar
	pairs int
	runs  int // of each pair
	done  int // work of the pairs that are over
	begun int // work of the pair that runs
}

func (g *progress) work(p Pair) int { return g.runs * (len(p.Reference) + 2*len(p.Target)) } // what is between is mostly shared

func newProgress(pairs []Pair, runs int, out io.Writer) *progress {
	g := &progress{out: out, pairs: len(pairs), runs: runs}
	if out == nil {
		g.out = os.Stderr
		info, err := os.Stderr.Stat()
		g.lines = err != nil || info.Mode()&os.ModeCharDevice == 0
	}
	total := 0
	for _, p := range pairs {
		total += g.work(p)
	}
	shown := g.out
	if g.lines {
		shown = io.Discard
	}
	g.bar = progressbar.NewOptions(max(1, total), progressbar.OptionSetWriter(shown), progressbar.OptionSetPredictTime(true),
		progressbar.OptionFullWidth(), progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish())
	return g
}

func (g *progress) begin(i int, p Pair) {
	g.begun = g.work(p)
	g.bar.Describe(fmt.Sprintf("%d/%d %s", i+1, g.pairs, p.ID))
	_ = g.bar.Set(g.done)
}

func (g *progress) add(n int) { _ = g.bar.Add(n) }

func (g *progress) end(r *Result) {
	if r.Error != "" {
		g.over(r.ID + ": " + r.Error)
		return
	}
	g.over(fmt.Sprintf("%-22s %5d tokens  %-6s %-24s TTFT %8.1f -> %7.1f ms %6.1fx  reused %.3f  KL %.4f (max %.3f)  top-1 %.2f",
		r.ID, r.Tokens, r.Decision, r.Reason, r.TTFTCold, r.TTFTShared, r.Speedup, r.Reused, r.KLMean, r.KLMax, r.Top1))
}

// over ends a pair with a line for who reads the log.
func (g *progress) over(line string) {
	g.done += g.begun
	_ = g.bar.Set(g.done)
	if g.lines {
		fmt.Fprintln(g.out, line)
	}
}

func (g *progress) finish() { _ = g.bar.Finish() }
