package matcher

import "sort"

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

// maxSegments bounds the quadratic chaining; the longest segments are kept.
const maxSegments = 2500

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
	heads map[uint64]int32 // last occurrence
	next  []int32          // previous occurrence of the same run
	at    []place
}

type place struct {
	ref int32
	pos int32
}

func newGramIndex(refs []Reference) *gramIndex {
	total := 0
	for _, r := range refs {
		total += len(r.Tokens)
	}
	g := &gramIndex{refs: refs, heads: make(map[uint64]int32, total), next: make([]int32, 0, total), at: make([]place, 0, total)}
	for ri, r := range refs {
		// From the back, so that a list yields its earliest occurrence first.
		for p := len(r.Tokens) - seedLen; p >= 0; p-- {
			h := gramHash(r.Tokens[p:])
			before, ok := g.heads[h]
			if !ok {
				before = -1
			}
			g.heads[h] = int32(len(g.at))
			g.next = append(g.next, before)
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

// diagonal is all that the target and a reference could have in common with the
// reference so many tokens ahead.
type diagonal struct{ ref, ahead int32 }

// segments returns the maximal runs of at least seedLen tokens that the target
// shares with the references, ordered by target position. A run may begin with tokens
// that stand too often for its place to be tried: it is found by what comes later in it.
func (g *gramIndex) segments(target []int32) []segment {
	var out []segment
	known := map[diagonal]int{} // the target position up to which its runs are known
	left := comparisons * len(g.at)
	for t := 0; t+seedLen <= len(target); t++ {
		left += comparisons
		i, ok := g.heads[gramHash(target[t:])]
		if !ok {
			continue
		}
		for tries := 0; i >= 0 && tries < maxSeedsPerGram && left > 0; i, tries = g.next[i], tries+1 {
			p := g.at[i]
			d := diagonal{p.ref, p.pos - int32(t)}
			if t < known[d] {
				continue
			}
			s := g.around(target, t, p)
			if s.end() < t+seedLen {
				continue // only the hash is the same
			}
			out = append(out, s)
			known[d] = s.end()
			left -= s.n
		}
	}
	return longest(out, maxSegments)
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

// longest keeps the n longest segments in target order.
func longest(s []segment, n int) []segment {
	if len(s) > n {
		sort.SliceStable(s, func(i, j int) bool { return s[i].n > s[j].n })
		s = s[:n]
	}
	sort.SliceStable(s, func(i, j int) bool { return s[i].t < s[j].t })
	return s
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
