package matcher

// Reference is an earlier prompt that a target may draw on. Tokens is not
// changed and must stay as it is while the Alignment is in use.
type Reference struct {
	ID         string
	Tokens     []int32
	Generation int
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
// what a jump of the source costs in recomputed tokens at most.
func Align(target []int32, refs []Reference, signer *Signer, seam int) *Alignment {
	a := &Alignment{Target: target, Refs: refs, Matches: make([]Match, len(target))}
	for i := range a.Matches {
		a.Matches[i].Ref = -1
	}
	runs := chain(newGramIndex(refs).segments(target), seam)
	for _, s := range runs {
		a.take(s)
	}
	a.fillGaps(runs, signer)
	return a
}

// take records an identical run.
func (a *Alignment) take(s segment) {
	for i := range s.n {
		a.Matches[s.t+i] = Match{int16(s.ref), int32(s.r + i), 1}
	}
}

// fillGaps aligns what lies between runs that go on in the same reference,
// before the first run and after the last.
func (a *Alignment) fillGaps(runs []segment, signer *Signer) {
	for i, s := range runs {
		switch {
		case i == 0:
			back := min(s.r, s.t+nearJump)
			a.fillGap(segment{s.ref, 0, s.r - back, s.t}, back, signer)
		case near(runs[i-1], s):
			p := runs[i-1]
			a.fillGap(segment{s.ref, p.end(), p.rEnd(), s.t - p.end()}, s.r-p.rEnd(), signer)
		}
	}
	if len(runs) > 0 {
		p := runs[len(runs)-1]
		n := len(a.Target) - p.end()
		a.fillGap(segment{p.ref, p.end(), p.rEnd(), n}, min(len(a.Refs[p.ref].Tokens)-p.rEnd(), n+nearJump), signer)
	}
}

// fillGap aligns target[g.t:g.t+g.n] with m reference tokens from g.r on.
func (a *Alignment) fillGap(g segment, m int, signer *Signer) {
	if g.n <= 0 || m <= 0 || g.n*m > maxGapCells {
		return
	}
	target := a.Target[g.t : g.t+g.n]
	ref := a.Refs[g.ref].Tokens[g.r : g.r+m]
	for i, p := range alignGap(g.n, m, gapLikeness(target, ref, signer)) {
		if p.r >= 0 {
			a.Matches[g.t+i] = Match{int16(g.ref), int32(g.r + p.r), float32(p.similarity)}
		}
	}
}

// gapLikeness compares tokens by the E-cache: embeddings with RoPE applied, at
// positions counted from the gap's start on either side, so that place counts
// within the gap but not the distance that the whole passage moved.
func gapLikeness(target, ref []int32, signer *Signer) likeness {
	same := func(t, r int) float64 {
		if target[t] == ref[r] {
			return 1
		}
		return 0
	}
	if signer == nil || signer.Identity() {
		return same
	}
	ts, err := signer.ECache(target, positions(len(target)))
	if err != nil {
		return same
	}
	rs, err := signer.ECache(ref, positions(len(ref)))
	if err != nil {
		return same
	}
	return func(t, r int) float64 {
		if target[t] == ref[r] {
			return 1
		}
		return min(max(Cosine(ts[t], rs[r]), 0), 0.999)
	}
}

func positions(n int) []int32 {
	p := make([]int32, n)
	for i := range p {
		p[i] = int32(i)
	}
	return p
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
