package bridge

import (
	"fmt"
	"math"
)

// RoPE says how far a key turns when its token moves. Keys are cached after
// rotation, so a token that moves by d positions has pair i of each head turned
// by d * Freqs[i] radians. A nil *RoPE means that keys cannot be moved.
type RoPE struct {
	// NEOX pairs element i with i + Dims/2; otherwise (NORM) 2i with 2i+1.
	NEOX bool
	// HeadDim is the length of a key, of which the first Dims elements rotate.
	HeadDim, Dims int
	// Freqs holds radians per position, Dims/2 of them, after frequency
	// factors, linear scaling and YaRN.
	Freqs []float32
	// Params are what it was made from, for computing keys as the server does.
	Params RoPEParams
}

// RoPEParams are the settings of a model's RoPE under the names that llama.cpp
// gives them.
type RoPEParams struct {
	NEOX          bool
	HeadDim, Dims int
	// Base is rope.freq_base.
	Base float64
	// Factors divide the frequencies pair by pair (tensor rope_freqs); nil means 1.
	Factors []float32
	// Scale is freq_scale: 1/factor for linear and YaRN scaling; 0 means 1.
	Scale float64
	// YaRN is nil unless rope.scaling.type is yarn.
	YaRN *YaRNParams
}

// YaRNParams are what YaRN needs beyond freq_scale. Its magnitude scale (mscale)
// is no part of it: cached keys already carry it, and turning keeps lengths.
type YaRNParams struct {
	// OrigCtx is rope.scaling.original_context_length.
	OrigCtx int
	// ExtFactor is the mix of extrapolation; llama.cpp takes 1.
	ExtFactor float64
	// BetaFast and BetaSlow bound the ramp; zeros mean 32 and 1.
	BetaFast, BetaSlow float64
}

// NewRoPE works out the frequencies: theta_i = Base^(-2i/Dims) / Factors[i],
// scaled by Scale, and under YaRN mixed between scaled and unscaled by a ramp over
// the pairs (ggml: ggml_rope_cache_init, rope_yarn, ggml_rope_yarn_corr_dims).
// Like ggml it rounds Base^(-2/Dims) to float32 before raising it.
func NewRoPE(p RoPEParams) (*RoPE, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	scale := p.scale()
	step := float64(float32(math.Pow(p.Base, -2/float64(p.Dims))))
	freqs := make([]float32, p.Dims/2)
	for i := range freqs {
		extrapolated := math.Pow(step, float64(i))
		if p.Factors != nil {
			extrapolated /= float64(p.Factors[i])
		}
		freqs[i] = float32(p.YaRN.mix(extrapolated, scale, i, p.Dims, p.Base))
	}
	return &RoPE{NEOX: p.NEOX, HeadDim: p.HeadDim, Dims: p.Dims, Freqs: freqs, Params: p}, nil
}

// scale is freq_scale.
func (p *RoPEParams) scale() float64 {
	if p.Scale == 0 {
		return 1
	}
	return p.Scale
}

func (p *RoPEParams) validate() error {
	switch {
	case p.HeadDim <= 0:
		return fmt.Errorf("rope: head of %d elements: expected more than 0", p.HeadDim)
	case p.Dims <= 0 || p.Dims%2 != 0 || p.Dims > p.HeadDim:
		return fmt.Errorf("rope: %d rotary dimensions: expected an even number from 2 to the head's %d", p.Dims, p.HeadDim)
	case !(p.Base > 0) || math.IsInf(p.Base, 0):
		return fmt.Errorf("rope: base %v: expected more than 0", p.Base)
	case !(p.Scale >= 0) || math.IsInf(p.Scale, 0):
		return fmt.Errorf("rope: scale %v: expected more than 0", p.Scale)
	case p.Factors != nil && len(p.Factors) < p.Dims/2:
		return fmt.Errorf("rope: %d frequency factors: expected %d", len(p.Factors), p.Dims/2)
	case p.YaRN != nil && p.YaRN.OrigCtx <= 0:
		return fmt.Errorf("rope: yarn with an original context of %d: expected more than 0", p.YaRN.OrigCtx)
	}
	for i, f := range p.Factors {
		if !(f > 0) || math.IsInf(float64(f), 0) {
			return fmt.Errorf("rope: frequency factor %d is %v: expected more than 0", i, f)
		}
	}
	return nil
}

// mix blends the scaled frequency of pair i with the unscaled one (rope_yarn).
func (y *YaRNParams) mix(extrapolated, scale float64, i, dims int, base float64) float64 {
	interpolated := scale * extrapolated
	if y == nil || y.ExtFactor == 0 {
		return interpolated
	}
	low, high := y.ramp(dims, base)
	at := (float64(i) - low) / max(0.001, high-low)
	share := (1 - min(1, max(0, at))) * y.ExtFactor
	return interpolated*(1-share) + extrapolated*share
}

// ramp returns between which pairs YaRN passes from unscaled to scaled
// (ggml_rope_yarn_corr_dims).
func (y *YaRNParams) ramp(dims int, base float64) (low, high float64) {
	fast, slow := y.BetaFast, y.BetaSlow
	if fast == 0 {
		fast = 32
	}
	if slow == 0 {
		slow = 1
	}
	pair := func(rotations float64) float64 {
		return float64(dims) * math.Log(float64(y.OrigCtx)/(rotations*2*math.Pi)) / (2 * math.Log(base))
	}
	return max(0, math.Floor(pair(fast))), min(float64(dims-1), math.Ceil(pair(slow)))
}

// validate checks what a caller may have filled in by hand.
func (r *RoPE) validate() error {
	switch {
	case r.HeadDim <= 0 || r.Dims < 0 || r.Dims > r.HeadDim || r.Dims%2 != 0:
		return fmt.Errorf("rope: %d rotary dimensions of %d: expected an even number up to the head's size", r.Dims, r.HeadDim)
	case len(r.Freqs) != r.Dims/2:
		return fmt.Errorf("rope: %d frequencies: expected %d", len(r.Freqs), r.Dims/2)
	}
	for i, f := range r.Freqs {
		if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
			return fmt.Errorf("rope: frequency %d is %v: expected a finite number", i, f)
		}
	}
	return nil
}

// pair returns which elements of a key are pair i.
func (r *RoPE) pair(i int) (a, b int) {
	if r.NEOX {
		return i, i + r.Dims/2
	}
	return 2 * i, 2*i + 1
}
