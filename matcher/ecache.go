package matcher

// eCache is the E-cache of the tokens of all gaps: each token at each position once.
type eCache struct {
	tokens, pos []int32
	at          map[[2]int32]int // where a token at a position stands in these
	signatures  []Signature      // of each, or nil
}

func newECache() *eCache { return &eCache{at: map[[2]int32]int{}} }

// add returns where the tokens stand, at positions from 0 on.
func (e *eCache) add(tokens []int32) []int {
	out := make([]int, len(tokens))
	for i, t := range tokens {
		key := [2]int32{t, int32(i)}
		at, ok := e.at[key]
		if !ok {
			at = len(e.tokens)
			e.at[key] = at
			e.tokens, e.pos = append(e.tokens, t), append(e.pos, int32(i))
		}
		out[i] = at
	}
	return out
}

// likeness compares a gap's target tokens with its reference tokens, once they are signed.
func (e *eCache) likeness(target, ref []int32) likeness {
	ts, rs := e.add(target), e.add(ref)
	return func(t, r int) float64 {
		switch {
		case target[t] == ref[r]:
			return 1
		case e.signatures == nil:
			return 0
		}
		return min(max(Cosine(e.signatures[ts[t]], e.signatures[rs[r]]), 0), 0.999)
	}
}
