package matcher

import (
	"slices"
	"testing"
)

// TestAPassageBehindOthersComesOutOfTheCopy has a reference whose first 300 tokens are
// there twice.
func TestAPassageBehindOthersComesOutOfTheCopy(t *testing.T) {
	const n, copied = 1200, 300
	base := ids(1, n)
	ref := Reference{Tokens: slices.Concat(base, base[:copied]), Copy: Copy{Len: copied}}
	first, second, third := base[:400], base[400:800], base[800:]
	f := func(name string, shifted bool, target []int32, wantCopied, wantSeam int) {
		t.Helper()
		a := Align(target, []Reference{ref}, IdentitySigner(1), 64)
		checkSources(t, a)
		got, at := 0, -1
		for i, m := range a.Matches {
			if m.Pos < n {
				continue
			}
			got++
			if at < 0 {
				at = i
			}
		}
		if got != wantCopied {
			t.Fatalf("%s: %d tokens come out of the copy, want %d", name, got, wantCopied)
		}
		p := Decide(a, Rules{Seam: 64, FirstSeam: 256, Shifted: shifted})
		seam := 0
		for i := at; i >= 0 && i < len(p.Tokens) && p.Tokens[i].Reason == Seam; i++ {
			seam++
		}
		if seam != wantSeam {
			t.Errorf("%s: %d tokens after its seam are recomputed, want %d", name, seam, wantSeam)
		}
	}
	f("in its place", true, base, 0, 0)
	f("behind the others, as it was computed", true, slices.Concat(second, third, first), copied, 0)
	f("behind one", true, slices.Concat(second, first, third), copied, 16)
	f("behind one, not shifted", false, slices.Concat(second, first, third), copied, 64)
	f("its end alone, which had some context", true, slices.Concat(second, third, first[280:]), 0, 0)
	f("behind little", true, slices.Concat(second[:100], first), 0, 0)
}

// TestWhatGoesOnBehindACopyHasItsContext: the copy is shorter than what an opening
// passage lacks context for.
func TestWhatGoesOnBehindACopyHasItsContext(t *testing.T) {
	const n, copied = 1200, 200
	base := ids(1, n)
	ref := Reference{Tokens: slices.Concat(base, base[:copied]), Copy: Copy{Len: copied}}
	target := slices.Concat(base[400:800], base[:400], base[800:])
	p := Decide(Align(target, []Reference{ref}, IdentitySigner(1), 64), Rules{Seam: 64, FirstSeam: 256})
	seam := 0
	for _, x := range p.Tokens[400+copied : 800] {
		if x.Reason == Seam {
			seam++
		}
	}
	if seam != 16 {
		t.Errorf("%d tokens are recomputed behind the copy, want 16", seam)
	}
}
