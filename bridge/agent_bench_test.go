package bridge

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// BenchmarkAgentScattered has the agent compute a tenth of a prompt of 2,000 tokens
// on the real model, in one run in its middle and in 100 places all over it, in
// turn with the server's own prefill of it all. It reports the medians of the times
// of whole requests and their ratios: scattered/run and scattered/cold.
func BenchmarkAgentScattered(b *testing.B) {
	k := newKitchen(b, lab.BackendOptions{Context: 8192})
	tokens := benchTokens(b, k, 2000)
	n := len(tokens)
	ref := k.cold("ref", tokens)
	layers := uint16(len(ref.Layout.Layers))
	recipe := func(chosen func(i int) bool) *Recipe {
		r := &Recipe{Tokens: tokens, Depth: make([]uint16, n), Runs: []Run{{Len: int32(n)}}, Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
		for i := range r.Depth {
			if chosen(i) {
				r.Depth[i] = layers
			}
		}
		return r
	}
	run := recipe(func(i int) bool { return i >= n*45/100 && i < n*55/100 })
	every := n / 100 // a place: its first tenth
	scattered := recipe(func(i int) bool { return i%every < every/10 })
	if a, c := count(run), count(scattered); a != c || a != n/10 {
		b.Fatalf("%d and %d tokens are computed: expected a tenth of %d", a, c, n)
	}
	timed := func(f func()) float64 {
		start := time.Now()
		f()
		return float64(time.Since(start).Microseconds()) / 1000
	}
	ctx := context.Background()
	var cold, one, many []float64
	for b.Loop() {
		one = append(one, timed(func() { k.cook(run) }))
		many = append(many, timed(func() { k.cook(scattered) }))
		if err := k.backend.Erase(ctx, 0); err != nil {
			b.Fatal(err)
		}
		cold = append(cold, timed(func() {
			if _, err := k.backend.Prefill(ctx, 0, tokens); err != nil {
				b.Fatal(err)
			}
		}))
	}
	c, o, m := median(cold), median(one), median(many)
	b.ReportMetric(c, "cold-ms")
	b.ReportMetric(o, "run-ms")
	b.ReportMetric(m, "scattered-ms")
	b.ReportMetric(m/o, "scattered/run")
	b.ReportMetric(m/c, "scattered/cold")
}

// benchTokens are the first n tokens of a real text.
func benchTokens(b *testing.B, k *kitchen, n int) []int32 {
	b.Helper()
	var text []byte
	for _, name := range []string{"../LICENSE", "../README.md", "../ARCHITECTURE.md"} {
		t, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		text = append(text, t...)
	}
	tokens, err := k.backend.Tokenize(context.Background(), "", string(text), true, false)
	if err != nil {
		b.Fatal(err)
	}
	if len(tokens) < n {
		b.Fatalf("the text has %d tokens: expected %d", len(tokens), n)
	}
	return tokens[:n]
}

func count(r *Recipe) int {
	n := 0
	for _, d := range r.Depth {
		if d > 0 {
			n++
		}
	}
	return n
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
