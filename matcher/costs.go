package matcher

import "math/bits"

// Costs is what filling a slot costs at a backend: by stages through saved states
// (Stage), or in one go inside the server (Agent). Times are in milliseconds; n counts
// tokens from the start of the prompt.
type Costs struct {
	// Token + TokenPos*n is the prefill of one token at position n, as part of a
	// long batch.
	Token, TokenPos float64
	// Short[k] is by how much a token costs more in a batch of 2^k to 2^(k+1)-1
	// tokens; 0 stands for 1, as do longer batches.
	Short [ShortBatches]float64
	// Stage + StagePos*n is a stage at position n beyond its prefill: writing
	// and restoring the state before it and saving it after.
	Stage, StagePos float64
	// Restore + RestorePos*n is the final state: written and restored.
	Restore, RestorePos float64
	// Agent is the price of a token computed in a batch inside the server, in
	// units of its prefill in a long batch.
	Agent float64
	// AgentFixed is what computing any tokens inside the server takes besides, in
	// whatever number: on a GPU, where it is the launching of graphs, layer by layer, it
	// can be more than the prefill of a thousand.
	AgentFixed float64
}

// ShortBatches is how many octaves of batch length have a price of their own.
const ShortBatches = 9

// Octave is the k of the batches of 2^k to 2^(k+1)-1 tokens that n belongs to.
func Octave(n int) int { return bits.Len(uint(n)) - 1 }

// Long is the time that tokens [from, to) would take as part of a long batch.
func (c Costs) Long(from, to int) float64 {
	n := float64(to - from)
	return n*c.Token + c.TokenPos*n*float64(from+to)/2
}

// Prefill is the time to compute tokens [from, to) in a batch of their own.
func (c Costs) Prefill(from, to int) float64 {
	ms := c.Long(from, to)
	if to <= from {
		return ms
	}
	if k := Octave(to - from); k < ShortBatches && c.Short[k] > 0 {
		ms *= c.Short[k]
	}
	return ms
}

// Inside is the time to compute in one go inside the server what takes ms at the price of
// a prefill.
func (c Costs) Inside(ms float64) float64 {
	if ms <= 0 {
		return 0
	}
	return c.AgentFixed + c.Agent*ms
}

func (c Costs) stage(at int) float64   { return c.Stage + c.StagePos*float64(at) }
func (c Costs) restore(at int) float64 { return c.Restore + c.RestorePos*float64(at) }

// span is the time to get to a span and compute it; nothing is saved after the
// last.
func (c Costs) span(s Span, last bool) float64 {
	if last {
		return c.restore(s.From) + c.Prefill(s.From, s.To)
	}
	return c.stage(s.From) + c.Prefill(s.From, s.To)
}

// lengthen makes s as long as the first batch that a backend computes sooner
// than the shorter s, if there is room: many kernels are fast only from some
// number of tokens on (ggml's flash attention on CPUs from 64: 64 tokens at
// position 2,000 took 0.8 of the time of 48). It grows to the right, where a
// change leaves its traces, and to the left at the end of the prompt.
func (c Costs) lengthen(s, room Span) Span {
	for k := Octave(s.len()) + 1; k < ShortBatches; k++ {
		longer := s.grow(1<<k, room)
		if longer.len() == 1<<k && c.Prefill(longer.From, longer.To) < c.Prefill(s.From, s.To) {
			return longer
		}
	}
	return s
}

// lengthenAll lengthens spans that do not touch, so that they still do not. The
// last ends the prompt of n tokens and grows to the left, all others to the right.
func (c Costs) lengthenAll(spans []Span, n int) []Span {
	out := make([]Span, len(spans))
	for i, s := range spans {
		room := Span{s.From, n}
		if i < len(spans)-1 {
			room.To = spans[i+1].From - 1
		} else if i > 0 {
			room.From = out[i-1].To + 1
		} else {
			room.From = 0
		}
		out[i] = c.lengthen(s, room)
	}
	return out
}
