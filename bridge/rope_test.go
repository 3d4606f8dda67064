package bridge

import (
	"math"
	"strings"
	"testing"
)

func TestRoPEFrequencies(t *testing.T) {
	f := func(p RoPEParams, want map[int]float64) {
		t.Helper()
		r, err := NewRoPE(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Freqs) != p.Dims/2 {
			t.Fatalf("%d frequencies: expected %d", len(r.Freqs), p.Dims/2)
		}
		for i, v := range want {
			if math.Abs(float64(r.Freqs[i])-v) > 1e-5*v {
				t.Errorf("pair %d turns by %v: expected %v", i, r.Freqs[i], v)
			}
		}
	}
	plain := RoPEParams{HeadDim: 128, Dims: 128, Base: 10000}
	f(plain, map[int]float64{0: 1, 16: 0.1, 32: 0.01, 48: 0.001})

	partial := plain
	partial.Dims = 64
	f(partial, map[int]float64{0: 1, 8: 0.1, 16: 0.01})

	linear := plain
	linear.Scale = 0.25
	f(linear, map[int]float64{0: 0.25, 32: 0.0025})

	factors := plain
	factors.Factors = make([]float32, 64)
	for i := range factors.Factors {
		factors.Factors[i] = float32(1 + i/32*7) // llama 3 slows the later pairs by 8
	}
	f(factors, map[int]float64{0: 1, 16: 0.1, 32: 0.01 / 8, 48: 0.001 / 8})

	// Qwen2.5's YaRN: 32768 original positions, factor 4. By ggml_rope_yarn_corr_dims
	// with base 1e6 the ramp goes from pair 23 to pair 40; pair 30 is 7/17 along it.
	yarn := RoPEParams{HeadDim: 128, Dims: 128, Base: 1e6, Scale: 0.25, YaRN: &YaRNParams{OrigCtx: 32768, ExtFactor: 1}}
	at := func(i int) float64 { return math.Pow(1e6, -2*float64(i)/128) }
	f(yarn, map[int]float64{0: 1, 23: at(23), 40: at(40) / 4, 63: at(63) / 4, 30: at(30) * (10.0/17 + 7.0/17/4)})

	without := yarn
	without.YaRN = &YaRNParams{OrigCtx: 32768}
	f(without, map[int]float64{0: 0.25, 30: at(30) / 4})
}

func TestRoPERefuses(t *testing.T) {
	f := func(change func(p *RoPEParams), want string) {
		t.Helper()
		p := RoPEParams{HeadDim: 64, Dims: 64, Base: 10000}
		change(&p)
		if _, err := NewRoPE(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v: expected %q", err, want)
		}
	}
	f(func(p *RoPEParams) { p.HeadDim = 0 }, "head of 0")
	f(func(p *RoPEParams) { p.Dims = 65 }, "65 rotary dimensions")
	f(func(p *RoPEParams) { p.Dims = 66 }, "66 rotary dimensions")
	f(func(p *RoPEParams) { p.Base = 0 }, "base 0")
	f(func(p *RoPEParams) { p.Base = math.NaN() }, "base NaN")
	f(func(p *RoPEParams) { p.Scale = -1 }, "scale -1")
	f(func(p *RoPEParams) { p.Factors = make([]float32, 31) }, "31 frequency factors")
	f(func(p *RoPEParams) { p.Factors = make([]float32, 32) }, "factor 0 is 0")
	f(func(p *RoPEParams) { p.YaRN = &YaRNParams{} }, "original context of 0")
}
