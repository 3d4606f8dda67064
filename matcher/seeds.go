package matcher

import (
	"context"
	"slices"
)

// seedLen is the length in tokens of the exact matches that anchor an
// alignment. Shorter matches are found between anchors; alone they mean little:
// two unrelated English texts share many runs of two or three tokens.
const seedLen = 5

// maxSeedsPerGram bounds how many reference positions one run of tokens is
// tried against.
const maxSeedsPerGram = 24

// comparisons bounds, for each token of target and references, how many are compared, so
// that repetitive prompts stay linear. What a repetitive stretch uses up comes back with
// the tokens behind it.
const comparisons = 32

// In a table of few values each run of tokens stands in more places than are tried. There
// the longest run goes on behind an edit: up to so many tokens behind its end it is looked
// whether it does, so many tokens further on or back.
const goOnWithin, goOnDrift = 64, 32

// maxSegments bounds the chaining; the longest segments are kept.
const maxSegments = 20000

// timeCheck is after how many tokens it is looked whether there is time left.
const timeCheck = 4096

// segment is a run of identical tokens: target[t:t+n] = refs[ref][r:r+n].
type segment struct {
	ref     int
	t, r, n int
}

func (s segment) end() int  { return s.t + s.n }
func (s segment) rEnd() int { return s.r + s.n }

// gramIndex finds where a run of seedLen tokens stands in the references.
type gramIndex struct {
	refs  []Reference
	heads map[uint64]int32 // first occurrence, in the first reference that has one
	next  []int32          // the following occurrence of the same run, or -1
	at    []place
}

type place struct {
	ref int32
	pos int32
}

// newGramIndex leaves out the references that there is no time for.
func newGramIndex(ctx context.Context, refs []Reference) *gramIndex {
	total := 0
	for _, r := range refs {
		total += len(r.Tokens)
	}
	g := &gramIndex{refs: refs, heads: make(map[uint64]int32, total), next: make([]int32, 0, total), at: make([]place, 0, total)}
	// From the back, so that a list yields its earliest occurrence first, of the first
	// reference, which has most of the target.
	for ri, r := range slices.Backward(refs) {
		if ctx.Err() != nil {
			break
		}
		for p := len(r.Tokens) - seedLen; p >= 0; p-- {
			h := gramHash(r.Tokens[p:])
			next, ok := g.heads[h]
			if !ok {
				next = -1
			}
			g.heads[h] = int32(len(g.at))
			g.next = append(g.next, next)
			g.at = append(g.at, place{int32(ri), int32(p)})
		}
	}
	return g
}

// gramHash is FNV-1a over the first seedLen tokens, word by word.
func gramHash(tokens []int32) uint64 {
	h := uint64(14695981039346656037)
	for _, t := range tokens[:seedLen] {
		h = (h ^ uint64(uint32(t))) * 1099511628211
		h ^= h >> 29
	}
	return h
}

// segments returns the maximal runs of at least seedLen tokens that the target
// shares with the references, ordered by target position. A run may begin with tokens
// that stand too often for its place to be tried: it is found by what comes later in it,
// or as what an earlier run goes on with. Where ctx ends it stops.
func (g *gramIndex) segments(ctx context.Context, target []int32) []segment {
	f := finder{g: g, target: target, known: newDiagonals(len(target), g.refs), left: comparisons * len(g.at)}
	for t := 0; t+seedLen <= len(target); t++ {
		if t%timeCheck == 0 && ctx.Err() != nil {
			break
		}
		f.left += comparisons
		i, ok := g.heads[gramHash(target[t:])]
		if !ok {
			continue
		}
		for tries := 0; i >= 0 && tries < maxSeedsPerGram && f.left > 0; i, tries = g.next[i], tries+1 {
			if s := f.try(t, g.at[i]); s.n >= f.long.n || t > f.long.end()+goOnWithin {
				f.long = s
			}
		}
		if i >= 0 {
			f.goOn(t)
		}
	}
	return f.found.inOrder()
}

// finder collects the runs of a target; left is how many tokens may still be compared.
type finder struct {
	g      *gramIndex
	target []int32
	found  longest
	known  diagonals
	left   int
	long   segment // the longest of the latest runs
}

// try adds the run that has target[t] at place p, and returns it; where there is none, or it
// is known, that is an empty one.
func (f *finder) try(t int, p place) segment {
	end := f.known.at(t, p)
	if int32(t) < *end {
		return segment{}
	}
	s := f.g.around(f.target, t, p)
	if s.end() < t+seedLen {
		return segment{} // only the hash is the same
	}
	f.found.add(s)
	*end = int32(s.end())
	f.left -= s.n
	return s
}

// goOn tries where the long run would have target[t], with some tokens more or fewer in
// between: nearest first. What is found there is the long run, if it is none by chance.
func (f *finder) goOn(t int) {
	s := f.long
	if t < s.end() || t > s.end()+goOnWithin {
		return
	}
	ref := f.g.refs[s.ref].Tokens
	for d := 0; d <= goOnDrift && f.left > 0; d++ {
		for _, r := range []int{s.r + t - s.t + d, s.r + t - s.t - d} {
			if r >= s.rEnd() && r+seedLen <= len(ref) && slices.Equal(ref[r:r+seedLen], f.target[t:t+seedLen]) {
				if on := f.try(t, place{int32(s.ref), int32(r)}); on.n >= goOnWithin {
					f.long = on
					return
				}
			}
			f.left--
		}
	}
}

// around is the maximal run that has target[t] at place p.
func (g *gramIndex) around(target []int32, t int, p place) segment {
	ref, r := g.refs[p.ref].Tokens, int(p.pos)
	before := 0
	for before < min(t, r) && target[t-before-1] == ref[r-before-1] {
		before++
	}
	return segment{int(p.ref), t - before, r - before, before + CommonPrefix(target[t:], ref[r:])}
}

// diagonals say up to which target position the runs are known, for each reference and each
// distance between a position of the target and one of the reference.
type diagonals struct {
	target int
	known  [][]int32
}

func newDiagonals(target int, refs []Reference) diagonals {
	d := diagonals{target, make([][]int32, len(refs))}
	for i, r := range refs {
		d.known[i] = make([]int32, target+len(r.Tokens))
	}
	return d
}

// at is what is known where the target's position t meets place p.
func (d diagonals) at(t int, p place) *int32 { return &d.known[p.ref][d.target-t+int(p.pos)] }

// longest keeps the maxSegments longest of the segments added, of equally long ones the
// first.
type longest struct {
	kept []segment
	full int // what is no longer than this has no room left
}

func (l *longest) add(s segment) {
	if s.n <= l.full {
		return
	}
	l.kept = append(l.kept, s)
	if len(l.kept) == 2*maxSegments {
		l.cut()
	}
}

func (l *longest) cut() {
	if len(l.kept) <= maxSegments {
		return
	}
	slices.SortStableFunc(l.kept, func(a, b segment) int { return b.n - a.n })
	l.kept = l.kept[:maxSegments]
	l.full = l.kept[maxSegments-1].n
}

// inOrder are those kept, in target order.
func (l *longest) inOrder() []segment {
	l.cut()
	slices.SortStableFunc(l.kept, func(a, b segment) int { return a.t - b.t })
	return l.kept
}

// CommonPrefix is how many tokens a and b have in common from their start.
func CommonPrefix(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
