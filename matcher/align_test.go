package matcher

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
)

// ids makes n tokens that repeat as little as text does.
func ids(seed uint64, n int) []int32 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(r.IntN(20000)) + 10
	}
	return out
}

// checkSources fails where a token that the alignment calls identical is not.
func checkSources(t *testing.T, a *Alignment) {
	t.Helper()
	for i, m := range a.Matches {
		if m.Ref >= 0 && m.Similarity == 1 && a.Refs[m.Ref].Tokens[m.Pos] != a.Target[i] {
			t.Fatalf("token %d is said to be position %d of reference %d, which is another token", i, m.Pos, m.Ref)
		}
	}
}

func TestAlignFindsEditedMovedAndInsertedPassages(t *testing.T) {
	base := ids(1, 1200)
	novel := ids(2, 60)
	f := func(name string, target []int32, refs [][]int32, unmatched int) {
		t.Helper()
		var rs []Reference
		for _, r := range refs {
			rs = append(rs, Reference{Tokens: r})
		}
		a := Align(t.Context(), target, rs, IdentitySigner(1), 48)
		checkSources(t, a)
		n := 0
		for _, m := range a.Matches {
			if m.Ref < 0 || m.Similarity != 1 {
				n++
			}
		}
		if n != unmatched {
			t.Errorf("%s: %d tokens have no identical counterpart, want %d", name, n, unmatched)
		}
	}
	f("the same", base, [][]int32{base}, 0)
	f("one token changed", slices.Concat(base[:500], novel[:1], base[501:]), [][]int32{base}, 1)
	f("every ninth token changed", everyNinth(base), [][]int32{base}, 133)
	f("a passage inserted", slices.Concat(base[:300], novel[:40], base[300:]), [][]int32{base}, 40)
	f("a passage deleted", slices.Concat(base[:300], base[340:]), [][]int32{base}, 0)
	f("a passage moved", slices.Concat(base[:300], base[600:800], base[300:600], base[800:]), [][]int32{base}, 0)
	f("an end cut off", base[:700], [][]int32{base}, 0)
	f("a start cut off", base[400:], [][]int32{base}, 0)
	f("two references", slices.Concat(base[:600], novel[:5], ids(3, 700)), [][]int32{base, ids(3, 700)}, 5)
	f("another text", ids(9, 800), [][]int32{base}, 800)
	same := make([]int32, 1000)
	f("behind a token that repeats itself", slices.Concat(ids(5, 8), same, everyNinth(base)), [][]int32{slices.Concat(ids(6, 500), same, base)}, 8+133)
}

func everyNinth(base []int32) []int32 {
	out := slices.Clone(base)
	for i := 3; i < len(out); i += 9 {
		out[i] = int32(i % 9)
	}
	return out
}

// TestAlignFindsPassagesThatBeginAlike: passages found by a search often stand under the
// same heading, more often than its places are tried.
func TestAlignFindsPassagesThatBeginAlike(t *testing.T) {
	heading := ids(7, 6)
	passages := func(from, to int) (all [][]int32) {
		for i := from; i < to; i++ {
			all = append(all, slices.Concat(heading, ids(uint64(100+i), 100)))
		}
		return all
	}
	f := func(name string, target []int32, refs ...[]int32) {
		t.Helper()
		var rs []Reference
		for _, r := range refs {
			rs = append(rs, Reference{Tokens: r})
		}
		a := Align(t.Context(), target, rs, IdentitySigner(1), 48)
		checkSources(t, a)
		if s := a.Similarity(DefaultTokenSimilarity); s != 1 {
			t.Errorf("%s: similarity %.3f, want 1", name, s)
		}
	}
	all := passages(0, 48)
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	f("in another order", slices.Concat(reversed...), slices.Concat(all...))
	target := passages(0, 16)
	f("of two references", slices.Concat(target...), slices.Concat(passages(0, 14)...), slices.Concat(slices.Concat(passages(20, 44), passages(14, 16))...))
}

// TestAlignGoesOnBehindAnEditOfAPlainTable: each run of its tokens stands in thousands of
// places.
func TestAlignGoesOnBehindAnEditOfAPlainTable(t *testing.T) {
	base := ids(1, 20000)
	for i := range base {
		base[i] = base[i]>>7&1 + 1
		if i%2 == 1 {
			base[i] = 3 // between the values
		}
	}
	other := slices.Clone(base)
	slices.Reverse(other)
	f := func(name string, target []int32) {
		t.Helper()
		a := Align(t.Context(), target, []Reference{{Tokens: base}, {Tokens: other}}, IdentitySigner(1), 48)
		checkSources(t, a)
		if s := a.Similarity(DefaultTokenSimilarity); s < .99 {
			t.Errorf("%s: similarity %.3f: nearly all is the same", name, s)
		}
	}
	const at = 9001
	f("a value", slices.Replace(slices.Clone(base), at, at+1, 4))
	f("values, less and less far apart", replaced(base, 4, 8001, 13001, 16001, 18001, 19001))
	f("a row more", slices.Insert(slices.Clone(base), at, 4, 3, 4, 3))
	f("a row less", slices.Delete(slices.Clone(base), at, at+10))
}

// replaced has value at each of the places.
func replaced(tokens []int32, value int32, places ...int) []int32 {
	out := slices.Clone(tokens)
	for _, p := range places {
		out[p] = value
	}
	return out
}

func TestAlignKeepsToOneReferenceWhereSeveralHaveTheSameText(t *testing.T) {
	base := ids(1, 900)
	a := Align(t.Context(), base, []Reference{{Tokens: base}, {Tokens: slices.Clone(base)}}, IdentitySigner(1), 48)
	for i, m := range a.Matches {
		if m.Ref != a.Matches[0].Ref || int(m.Pos) != i {
			t.Fatalf("token %d comes from position %d of reference %d", i, m.Pos, m.Ref)
		}
	}
}

// TestAlignFindsScatteredEditsOfALongPrompt: there are more runs than are chained with each
// other.
func TestAlignFindsScatteredEditsOfALongPrompt(t *testing.T) {
	base := ids(1, 60000)
	a := Align(t.Context(), everyNinth(base), []Reference{{Tokens: base}}, IdentitySigner(1), 48)
	checkSources(t, a)
	if s := a.Similarity(DefaultTokenSimilarity); s < .88 {
		t.Errorf("similarity %.3f: 8 of 9 tokens are the same", s)
	}
}

// TestChainReachesBackOverManySegments: what lies in between, as in a text of many lines that
// are much alike, does not count.
func TestChainReachesBackOverManySegments(t *testing.T) {
	segs := []segment{{0, 0, 0, 30000}}
	for i := range 10000 {
		segs = append(segs, segment{1, 3*i + 1, 50000 - 3*i, seedLen})
	}
	segs = append(segs, segment{0, 30001, 30001, 500})
	got := chain(t.Context(), segs, 64)
	if want := []segment{segs[0], segs[len(segs)-1]}; !slices.Equal(got, want) {
		t.Errorf("chained %v, want %v", got[:min(len(got), 3)], want)
	}
}

func TestTheLongestSegmentsAreKept(t *testing.T) {
	var l longest
	for i := range 5 * maxSegments {
		l.add(segment{n: 5 + i%7, t: 5*maxSegments - i})
	}
	got := l.inOrder()
	if len(got) != maxSegments || !slices.IsSortedFunc(got, func(a, b segment) int { return a.t - b.t }) {
		t.Errorf("%d segments, in order: %v", len(got), slices.IsSortedFunc(got, func(a, b segment) int { return a.t - b.t }))
	}
	longestOnes := 0
	for _, s := range got {
		if s.n < 10 {
			t.Fatalf("one of length %d is kept, of 10 and 11 there are more than enough", s.n)
		}
		if s.n == 11 {
			longestOnes++
		}
	}
	if want := 5 * maxSegments / 7; longestOnes < want {
		t.Errorf("%d of length 11, want all %d", longestOnes, want)
	}
}

// endsAfter is a context that ends when it was looked at so many times.
type endsAfter struct {
	context.Context
	looks int
}

func (c *endsAfter) Err() error {
	if c.looks--; c.looks < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestAlignStopsWhenTimeIsUp, wherever that happens: in the search, the chaining, the signing
// or the gaps.
func TestAlignStopsWhenTimeIsUp(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: takes long under the race detector")
	}
	base := ids(1, 3*timeCheck)
	for i := range base {
		base[i] %= 2000 // testSigner's vocabulary
	}
	refs := []Reference{{Tokens: base}}
	target := everyNinth(base)
	signer := testSigner(t, 1)
	all := &endsAfter{t.Context(), 1 << 30}
	if Align(all, target, refs, signer, 48) == nil {
		t.Fatal("not aligned though there is time")
	}
	looks := 1<<30 - all.looks
	segments := newGramIndex(t.Context(), refs).segments(t.Context(), target)
	gaps := len(chain(t.Context(), segments, 48)) - 1
	if least := len(target)/timeCheck + len(segments) + 2*gaps/projectRows + gaps; looks < least {
		t.Errorf("looked %d times whether there is time, want %d at least", looks, least)
	}
	for n := 0; n < looks; n += looks / 50 {
		if Align(&endsAfter{t.Context(), n}, target, refs, signer, 48) != nil {
			t.Fatalf("aligned though time was up at look %d of %d", n, looks)
		}
	}
}

func TestVerifyKeepsNoneWhenTimeIsUp(t *testing.T) {
	base := ids(1, 300)
	refs := []Reference{{Tokens: base}, {Tokens: ids(2, 300)}}
	for n := range 3 {
		if got := Verify(&endsAfter{t.Context(), n}, base, refs, 4, 48); len(got) > 0 {
			t.Errorf("time was up at look %d: picked %d references", n, len(got))
		}
	}
}

func TestSimilarityCountsTokensAtLeastAsAlike(t *testing.T) {
	a := &Alignment{Matches: []Match{{0, 0, 1}, {0, 1, 0.5}, {0, 2, 0.2}, {-1, 0, 0}}}
	if got := a.Similarity(0.5); got != 0.5 {
		t.Errorf("similarity %v, want 0.5", got)
	}
}

func TestVerifyPicksTheReferencesThatCoverTheMost(t *testing.T) {
	a, b, c := ids(1, 500), ids(2, 400), ids(3, 300)
	target := slices.Concat(a, b, c)
	refs := []Reference{{ID: "other", Tokens: ids(8, 900)}, {ID: "c", Tokens: c}, {ID: "ab", Tokens: slices.Concat(a, b)}, {ID: "b", Tokens: b}}
	got := Verify(t.Context(), target, refs, 4, 48)
	if len(got) != 2 || got[0].ID != "ab" || got[1].ID != "c" {
		t.Errorf("picked %d references, first %q: want ab and c", len(got), got[0].ID)
	}
	if got := Verify(t.Context(), target, refs[:1], 4, 48); len(got) != 0 {
		t.Errorf("picked an unrelated reference")
	}
}

func FuzzAlignNeverInventsACounterpart(f *testing.F) {
	f.Add([]byte("the quick brown fox jumps over it"), []byte("the quick red fox jumps over it, and over it again"))
	f.Fuzz(func(t *testing.T, target, ref []byte) {
		tokens := func(b []byte) []int32 {
			out := make([]int32, len(b))
			for i, c := range b {
				out[i] = int32(c)
			}
			return out
		}
		if len(target) == 0 || len(target) > 2000 || len(ref) > 2000 {
			return
		}
		a := Align(t.Context(), tokens(target), []Reference{{Tokens: tokens(ref)}}, IdentitySigner(1), 16)
		checkSources(t, a)
		p := Decide(t.Context(), a, Rules{Followers: 2, CriticalFollowers: 4, Seam: 16})
		s := NewSchedule(p, Costs{Token: 1, Stage: 3, Restore: 3}, Limits{Budget: -1})
		if last := s.Spans[len(s.Spans)-1]; last.To != len(target) {
			t.Fatalf("the last span ends at %d of %d", last.To, len(target))
		}
		checkSchedule(t, p, s)
	})
}
