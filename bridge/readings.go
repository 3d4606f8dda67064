package bridge

import (
	"context"
	"slices"
	"time"
)

// Reading is a prefill that was timed.
type Reading struct {
	At, N int     // tokens that the slot held, tokens that were computed
	MS    float64 // by the server's own account
}

// reading is the backend's account as a reading.
func (p Prefilled) reading() Reading { return Reading{p.CacheN, p.PromptN, p.PromptMS} }

// PerToken is in ms.
func (r Reading) PerToken() float64 { return r.MS / float64(max(1, r.N)) }

// AgentReading is a recipe of N tokens that was timed, of which some were computed. Times
// are in ms; N is 0 where only the computing was timed, or nothing.
type AgentReading struct {
	N, Computed int
	// Recompute is the computing, by the agent's own account. On a GPU most of it is
	// what a recipe takes however few tokens it computes.
	Recompute float64
	// Rest is all else: composing, restoring, and the request.
	Rest float64
}

const (
	// fastTokenMS is what each of probeTokens takes a fast backend at most, in ms. On one
	// that is slower their prefill tells enough, and more would make its start slow.
	fastTokenMS = 1
	// fastSingleMS is what a single token takes a fast backend at most, in ms.
	fastSingleMS = 30
	// longReading is the length of the long prefill that is timed, in tokens.
	longReading = 1024
	// readingTries of everything, of which the quickest counts: other requests may be
	// served meanwhile.
	readingTries = 2
	// recipeComputed tokens of the recipe that is timed are computed, spread over it.
	recipeComputed = 64
)

// readingLengths are those timed: the long prefill into an empty slot, then short ones
// behind it. On a GPU 64 tokens take little longer than one.
func readingLengths(long int) []int { return []int{long, 1, 8, 64} }

// fast reports whether a backend is worth being timed more closely.
func (r Reading) fast() bool { return r.PerToken() < fastTokenMS }

// readings are those of a backend that took so long for the probe's prompt and for a single
// token behind it.
func (p Prober) readings(ctx context.Context, first, single Reading) ([]Reading, error) {
	first, err := p.warm(ctx, first, single)
	if err != nil {
		return nil, err
	}
	if first.fast() {
		if timed, err := p.time(ctx); err != nil || len(timed) > 0 {
			return timed, err
		}
	}
	return []Reading{first}, nil
}

// warm returns the reading of the first prefill, or, if that was slow though a single token
// behind it was not, of a second prefill of the same length: on a GPU the first is mostly
// start-up.
func (p Prober) warm(ctx context.Context, first, single Reading) (Reading, error) {
	if first.fast() || single.MS > fastSingleMS {
		return first, nil
	}
	if err := p.Backend.Erase(ctx, p.Slot); err != nil {
		return first, err
	}
	got, err := p.Backend.Prefill(ctx, p.Slot, p.repeated(1, probeTokens))
	if again := got.reading(); err == nil && again.N == first.N && again.MS < first.MS {
		return again, nil
	}
	return first, err
}

// Fast reports whether the backend turned out to be fast, and was timed more closely.
func (p *Probed) Fast() bool { return len(p.Readings) > 1 }

// TokenMS is the prefill time of one token in ms, as far as is known.
func (p *Probed) TokenMS() float64 { return p.Longest().PerToken() }

// Longest is the reading of most tokens.
func (p *Probed) Longest() (longest Reading) {
	for _, r := range p.Readings {
		if r.N > longest.N {
			longest = r
		}
	}
	return longest
}

// long is how many tokens a long reading has room for in a slot; 0 where that is no more
// than the first prefill had.
func (p Prober) long() int {
	n := longReading
	if p.Props.Context > 0 {
		n = min(n, p.Props.Context/2)
	}
	if n <= probeTokens {
		return 0
	}
	return n
}

// time has the slot compute a long prompt and short ends behind it. All tokens
// differ from reading to reading, so that no cache of the server knows them. What the
// server did not compute as meant, since another request used the slot, is left out.
func (p Prober) time(ctx context.Context) ([]Reading, error) {
	n := p.long()
	if n == 0 {
		return nil, nil
	}
	lengths := readingLengths(n)
	best := make([]Reading, len(lengths))
	for try := range readingTries {
		if err := p.Backend.Erase(ctx, p.Slot); err != nil {
			return nil, err
		}
		var held []int32
		for i, length := range lengths {
			prompt := append(held[:len(held):len(held)], p.repeated(2+try*len(lengths)+i, length)...)
			got, err := p.Backend.Prefill(ctx, p.Slot, prompt)
			if err != nil {
				return nil, err
			}
			if r := got.reading(); r.At == len(held) && r.N == length && (best[i].N == 0 || r.MS < best[i].MS) {
				best[i] = r
			}
			if i == 0 {
				held = prompt
			}
		}
	}
	if best[0].N == 0 {
		return nil, nil // without the long one the others have nothing to be compared with
	}
	out := best[:0]
	for _, r := range best {
		if r.N > 0 {
			out = append(out, r)
		}
	}
	return out, nil
}

// timeAgent has the agent take over a long prompt and compute a few of its tokens. Of
// the given files the first gets the state, the second the recipe. Where another request uses
// the slot nothing is timed.
func (p Prober) timeAgent(ctx context.Context, rope *RoPE, state, recipe string) (AgentReading, error) {
	var best AgentReading
	n := p.long()
	if n == 0 {
		return best, nil
	}
	tokens := p.repeated(0, n)
	if _, err := p.fill(ctx, state, tokens); err != nil {
		return best, err
	}
	s, err := OpenState(state)
	if err != nil {
		return best, err
	}
	defer s.Close()
	if !slices.Equal(s.Tokens, tokens) {
		return best, nil
	}
	r := Recipe{Tokens: s.Tokens, Depth: make([]uint16, n), Runs: []Run{{Len: int32(n)}}, Layout: &s.Layout, Refs: []*State{s}, RoPE: rope}
	for i := range recipeComputed {
		r.Depth[i*n/recipeComputed] = uint16(len(s.Layout.Layers))
	}
	for range readingTries {
		start := time.Now()
		reply, err := p.cook(ctx, recipe, &r)
		if err != nil {
			return best, err
		}
		rest := float64(time.Since(start).Microseconds())/1000 - reply.Recompute
		if best.N == 0 || reply.Recompute+rest < best.Recompute+best.Rest {
			best = AgentReading{N: n, Computed: recipeComputed, Recompute: reply.Recompute, Rest: max(0, rest)}
		}
	}
	return best, nil
}
