package bridge

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
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
	run := k.computing(tokens, ref, func(i int) bool { return i >= n*45/100 && i < n*55/100 })
	every := n / 100 // a place: its first tenth
	scattered := k.computing(tokens, ref, func(i int) bool { return i%every < every/10 })
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

// computing is a recipe that takes the whole of ref over and computes what is chosen.
func (k *kitchen) computing(tokens []int32, ref *State, chosen func(i int) bool) *Recipe {
	r := &Recipe{Tokens: tokens, Depth: make([]uint16, len(tokens)), Runs: []Run{{Len: int32(len(tokens))}}, Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
	for i := range r.Depth {
		if chosen(i) {
			r.Depth[i] = uint16(len(ref.Layout.Layers))
		}
	}
	return r
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

// BenchmarkAgentBlocks decodes in one slot while the other is filled, by the server's
// own prefill of 2,000 tokens and by a recipe that computes a tenth of them, and
// reports the longest that a token of the first slot took in each: the server does
// nothing else while it carries a recipe out, nor during a batch of a prompt.
func BenchmarkAgentBlocks(b *testing.B) {
	k := newKitchen(b, lab.BackendOptions{Context: 8192})
	tokens := benchTokens(b, k, 2000)
	ref := k.cold("ref", tokens)
	r := k.computing(tokens, ref, func(i int) bool { return i%10 == 0 })
	ctx := context.Background()
	var prefill, recipe []float64
	for b.Loop() {
		if err := k.backend.Erase(ctx, 1); err != nil {
			b.Fatal(err)
		}
		prefill = append(prefill, longestToken(b, k.lab.URL, func() {
			if _, err := k.backend.Prefill(ctx, 1, tokens); err != nil {
				b.Fatal(err)
			}
		}))
		recipe = append(recipe, longestToken(b, k.lab.URL, func() { k.cook(r) }))
	}
	b.ReportMetric(median(prefill), "prefill-ms")
	b.ReportMetric(median(recipe), "recipe-ms")
	b.ReportMetric(median(recipe)/median(prefill), "recipe/prefill")
}

// longestToken decodes in slot 0 while f runs and returns the longest time between
// two tokens, in ms.
func longestToken(b *testing.B, url string, f func()) float64 {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion",
		strings.NewReader(`{"prompt":"Once upon a time","n_predict":-1,"ignore_eos":true,"stream":true,"id_slot":0}`))
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	gaps := make(chan time.Duration, 1<<16)
	go func() {
		defer close(gaps)
		last := time.Now()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if strings.HasPrefix(lines.Text(), "data:") {
				gaps <- time.Since(last)
				last = time.Now()
			}
		}
	}()
	<-gaps // the prompt
	<-gaps
	f()
	time.Sleep(100 * time.Millisecond) // the token that waited
	cancel()
	longest := time.Duration(0)
	for g := range gaps {
		longest = max(longest, g)
	}
	return float64(longest.Microseconds()) / 1000
}

// BenchmarkAgentFew has the agent compute few tokens of 2,000, all over the second half
// of the prompt: what it takes does not grow evenly, since attention has a slow and a
// fast kernel.
func BenchmarkAgentFew(b *testing.B) {
	k := newKitchen(b, lab.BackendOptions{Context: 8192})
	tokens := benchTokens(b, k, 2000)
	n := len(tokens)
	ref := k.cold("ref", tokens)
	for _, few := range []int{1, 16, 32, 48, 64, 128} {
		every := n / 2 / few
		r := k.computing(tokens, ref, func(i int) bool { return i >= n-few*every && (n-1-i)%every == 0 })
		if c := count(r); c != few {
			b.Fatalf("%d tokens are computed: expected %d", c, few)
		}
		b.Run(strconv.Itoa(few), func(b *testing.B) {
			var took []float64
			for b.Loop() {
				took = append(took, k.cook(r).Recompute)
			}
			b.ReportMetric(median(took), "recompute-ms")
			b.ReportMetric(median(took)/float64(few), "ms/token")
		})
	}
}
