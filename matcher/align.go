package matcher

import "context"

// Reference is an earlier prompt that a target may draw on. Tokens is not
// changed and must stay as it is while the Alignment is in use.
type Reference struct {
	ID     string
	Tokens []int32
}

// Match is the counterpart of one target token.
type Match struct {
	Ref        int16   // index of the reference, -1: none
	Pos        int32   // position in it
	Similarity float32 // 1: the same token; below: cosine of the E-cache embeddings
}

// Alignment holds for each target token its counterpart in the references.
type Alignment struct {
	Target  []int32
	Refs    []Reference
	Matches []Match // one per target token
}

// Align finds for every target token its counterpart (the paper's fuzzy token
// matching): long identical runs first, wherever they stand in any of the
// references, then, between runs that follow one another in the same reference,
// the tokens in order, identical or alike by their E-cache signatures. seam is
// what a jump of the source costs in recomputed tokens at most. It is nil where ctx ended
// first.
func Align(ctx context.Context, target []int32, refs []Reference, signer *Signer, seam int) *Alignment {
	a := &Alignment{Target: target, Refs: refs, Matches: make([]Match, len(target))}
	for i := range a.Matches {
		a.Matches[i].Ref = -1
	}
	runs := chain(ctx, newGramIndex(ctx, refs).segments(ctx, target), seam)
	for _, s := range runs {
		a.take(s)
	}
	a.fillGaps(ctx, runs, signer)
	if ctx.Err() != nil {
		return nil
	}
	return a
}

// take records an identical run.
func (a *Alignment) take(s segment) {
	for i := range s.n {
		a.Matches[s.t+i] = Match{int16(s.ref), int32(s.r + i), 1}
	}
}

// gap is a stretch of the target, and m reference tokens from r on that it is aligned with.
type gap struct {
	segment
	m int
}

// fillGaps aligns what lies between runs that go on in the same reference,
// before the first run and after the last. Where ctx ends it stops.
func (a *Alignment) fillGaps(ctx context.Context, runs []segment, signer *Signer) {
	gaps := a.gaps(runs)
	like := a.likenesses(ctx, gaps, signer)
	for k, g := range gaps {
		if ctx.Err() != nil {
			return
		}
		for i, p := range alignGap(g.n, g.m, like[k]) {
			if p.r >= 0 {
				a.Matches[g.t+i] = Match{int16(g.ref), int32(g.r + p.r), float32(p.similarity)}
			}
		}
	}
}

// gaps are those that are not too large.
func (a *Alignment) gaps(runs []segment) (out []gap) {
	add := func(s segment, m int) {
		if s.n > 0 && m > 0 && s.n*m <= maxGapCells {
			out = append(out, gap{s, m})
		}
	}
	for i, s := range runs {
		switch {
		case i == 0:
			back := min(s.r, s.t+nearJump)
			add(segment{s.ref, 0, s.r - back, s.t}, back)
		case near(runs[i-1], s):
			p := runs[i-1]
			add(segment{s.ref, p.end(), p.rEnd(), s.t - p.end()}, s.r-p.rEnd())
		}
	}
	if len(runs) > 0 {
		p := runs[len(runs)-1]
		n := len(a.Target) - p.end()
		add(segment{p.ref, p.end(), p.rEnd(), n}, min(len(a.Refs[p.ref].Tokens)-p.rEnd(), n+nearJump))
	}
	return out
}

// likenesses compare tokens by the E-cache: embeddings with RoPE applied, at
// positions counted from the gap's start on either side, so that place counts
// within the gap but not the distance that the whole passage moved. All gaps are
// signed in one call, whose tables of angles cost more than a short gap, and what stands
// in many of them is signed once.
func (a *Alignment) likenesses(ctx context.Context, gaps []gap, signer *Signer) []likeness {
	e := newECache()
	out := make([]likeness, len(gaps))
	for k, g := range gaps {
		out[k] = e.likeness(a.Target[g.t:g.t+g.n], a.Refs[g.ref].Tokens[g.r:g.r+g.m])
	}
	if signer != nil && !signer.Identity() {
		e.signatures, _ = signer.ECache(ctx, e.tokens, e.pos) // where it fails a token is like itself and nothing else
	}
	return out
}

// Similarity is the share of the target's tokens whose counterpart is the same
// token or at least as alike as threshold.
func (a *Alignment) Similarity(threshold float32) float64 {
	if len(a.Matches) == 0 {
		return 0
	}
	n := 0
	for _, m := range a.Matches {
		if m.Ref >= 0 && m.Similarity >= threshold {
			n++
		}
	}
	return float64(n) / float64(len(a.Matches))
}
