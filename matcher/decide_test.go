package matcher

import (
	"slices"
	"strings"
	"testing"
)

// text makes tokens of words, each with its leading space, and their pieces.
type text struct {
	ids    map[string]int32
	pieces []string
}

func (x *text) tokens(s string) (out []int32) {
	if x.ids == nil {
		x.ids = map[string]int32{}
	}
	for _, w := range strings.Split(s, " ") {
		w = " " + w
		if _, ok := x.ids[w]; !ok {
			x.ids[w] = int32(len(x.pieces))
			x.pieces = append(x.pieces, w)
		}
		out = append(out, x.ids[w])
	}
	return out
}

func (x *text) piece(t int32) string { return x.pieces[t] }

const story = "the old keeper climbed the narrow stairs every evening and lit the lamp while the wind pulled at the shutters and the sea went on below him"

// reasons plans target against reference and spells out each token's reason by
// its first letter.
func reasons(t *testing.T, reference, target string) string {
	t.Helper()
	var x text
	ref, tgt := x.tokens(reference), x.tokens(target)
	a := Align(t.Context(), tgt, []Reference{{Tokens: ref}}, IdentitySigner(1), 4)
	p := Decide(t.Context(), a, Rules{TokenSimilarity: DefaultTokenSimilarity, Critical: AllClasses, Followers: 1, CriticalFollowers: 3, Seam: 4, FirstSeam: 4, Pieces: x.piece})
	var b strings.Builder
	for _, tok := range p.Tokens {
		b.WriteByte(tok.Reason.String()[0])
	}
	return b.String()
}

func TestDecideRecomputesWhatChangedAndWhatFollowsIt(t *testing.T) {
	f := func(target, want string) {
		t.Helper()
		if got := reasons(t, story, target); got != want {
			t.Errorf("%q\n got %s\nwant %s", target, got, want)
		}
	}
	r := func(n int) string { return strings.Repeat("r", n) }
	f(story, r(26)+"t")
	f(strings.Replace(story, "narrow", "winding", 1), r(5)+"lf"+r(19)+"t")
	f(strings.Replace(story, "narrow", "40", 1), r(5)+"cfff"+r(17)+"t")
	f(strings.Replace(story, "every", "never", 1), r(7)+"cfff"+r(15)+"t")
	f(strings.Replace(story, "narrow stairs", "narrow stone stairs", 1), r(6)+"uf"+r(19)+"t")
	f(strings.Replace(story, "the narrow stairs", "the stairs", 1), r(5)+"f"+r(19)+"t")
}

func TestDecideRecomputesAfterASeam(t *testing.T) {
	w := strings.Split(story, " ")
	target := strings.Join(slices.Concat(w[13:], w[:13]), " ")
	got := reasons(t, story, target)
	if !strings.HasPrefix(got, "ssss") || strings.Count(got, "s") != 8 {
		t.Errorf("two seams of 4 tokens expected: %s", got)
	}
}

// A passage that was put in between is a seam though the source goes on; a sentence is
// an edit.
func TestDecideRecomputesAfterAnInsertedPassage(t *testing.T) {
	f := func(words, after int) {
		t.Helper()
		inserted := strings.TrimSuffix(strings.Repeat("quux ", words), " ")
		got := reasons(t, story, strings.Replace(story, "climbed", inserted+" climbed", 1))
		want := strings.Repeat("r", 3) + strings.Repeat("u", words) + strings.Repeat(map[bool]string{true: "s", false: "f"}[after > 1], after) + strings.Repeat("r", 23-after) + "t"
		if got != want {
			t.Errorf("%d words inserted:\n got %s\nwant %s", words, got, want)
		}
	}
	f(nearJump-1, 1)
	f(nearJump, 4)
}

// What follows a word of its kind is taken over, what follows another is not.
func TestDecideFollowsWhatIsUnlike(t *testing.T) {
	tokens := ids(1, 10)
	for similarity, want := range map[float32][2]Reason{.8: {Fuzzy, Reused}, .2: {LowSimilarity, Follows}} {
		a := &Alignment{Target: tokens, Refs: []Reference{{Tokens: tokens}}, Matches: make([]Match, len(tokens))}
		for i := range a.Matches {
			a.Matches[i] = Match{Pos: int32(i), Similarity: 1}
		}
		a.Matches[4].Similarity = similarity
		p := Decide(t.Context(), a, Rules{TokenSimilarity: .5, Followers: 1, Pieces: func(int32) string { return " word" }})
		if got := [2]Reason{p.Tokens[4].Reason, p.Tokens[5].Reason}; got != want {
			t.Errorf("similarity %v: %v, want %v", similarity, got, want)
		}
	}
}

// Where few ordinary words differ, are new or are gone, what follows each is recomputed as
// after a critical one; where many do, it is not.
func TestDecideFollowsFewChangesAsCriticalOnes(t *testing.T) {
	const n, behind = 1000, 6
	ref := ids(1, n)
	rules := Rules{TokenSimilarity: .5, Followers: 1, CriticalFollowers: behind, Pieces: func(int32) string { return " word" }}
	recomputed := func(a *Alignment, share float64) int {
		r := rules
		r.WordShare = share
		return Decide(t.Context(), a, r).Recomputed() - 1
	}
	near := func(words, want int) {
		t.Helper()
		a := &Alignment{Target: ref, Refs: []Reference{{Tokens: ref}}, Matches: make([]Match, n)}
		for i := range a.Matches {
			a.Matches[i] = Match{Pos: int32(i), Similarity: 1}
		}
		for i := range words {
			a.Matches[50*(i+1)].Similarity = .8
		}
		if got := recomputed(a, .02); got != want {
			t.Errorf("%d near counterparts: %d tokens recomputed besides the last, want %d", words, got, want)
		}
	}
	near(1, behind)
	near(3, 3*behind)
	near(4, 0) // 24 of 1000 tokens are more than .02
	one := func(change string, target []int32, few, many int) {
		t.Helper()
		a := Align(t.Context(), target, []Reference{{Tokens: ref}}, IdentitySigner(1), 64)
		if f, m := recomputed(a, .02), recomputed(a, 0); f != few || m != many {
			t.Errorf("a word is %s: %d tokens recomputed where few are followed, %d where none: want %d and %d", change, f, m, few, many)
		}
	}
	one("another", slices.Concat(ref[:500], ids(5000, 1), ref[501:]), 1+behind, 2)
	one("new", slices.Concat(ref[:500], ids(5000, 1), ref[500:]), 1+behind, 2)
	one("gone", slices.Concat(ref[:500], ref[501:]), behind, 1)
}

// Without the tokens' text nothing is known that would make a change harmless.
func TestDecideTakesWhatItCannotReadForCritical(t *testing.T) {
	f := func(similarity float32, classes Class) {
		t.Helper()
		tokens := ids(1, 10)
		a := &Alignment{Target: tokens, Refs: []Reference{{Tokens: tokens}}, Matches: make([]Match, len(tokens))}
		for i := range a.Matches {
			a.Matches[i] = Match{Pos: int32(i), Similarity: 1}
		}
		a.Matches[4].Similarity = similarity
		p := Decide(t.Context(), a, Rules{TokenSimilarity: .5, Critical: classes, Followers: 1, CriticalFollowers: 3})
		want := []Reason{Reused, Critical, Follows, Follows, Follows, Reused}
		for i, w := range want {
			if got := p.Tokens[3+i].Reason; got != w {
				t.Errorf("similarity %v, classes %d: token %d is %v, want %v", similarity, classes, 3+i, got, w)
			}
		}
	}
	f(.9, AllClasses)
	f(.2, Number)
}

// A passage that has long contexts here and there needs fewer tokens at its start than
// one that loses its context, and that fewer than one that gains it.
func TestDecideRecomputesLessAfterALateSeam(t *testing.T) {
	base := ids(1, 1200)
	first, second, third := base[:400], base[400:800], base[800:]
	f := func(target []int32, want ...int) {
		t.Helper()
		p := Decide(t.Context(), Align(t.Context(), target, []Reference{{Tokens: base}}, IdentitySigner(1), 64), Rules{Seam: 64, FirstSeam: 128})
		for k, from := range []int{0, 400, 800} {
			n := 0
			for _, x := range p.Tokens[from:min(from+400, len(p.Tokens)-1)] {
				if x.Reason == Seam {
					n++
				}
			}
			if n != want[k] {
				t.Errorf("passage %d: %d tokens after its seam are recomputed, want %d", k, n, want[k])
			}
		}
	}
	f(slices.Concat(first, third, second), 0, 16, 16)
	f(slices.Concat(second, first, third), 64, 128, 16)
	f(slices.Concat(third, second, first), 64, 16, 128)
}

// count is how many tokens have the reason.
func (p *Plan) count(r Reason) int {
	n := 0
	for _, t := range p.Tokens {
		if t.Reason == r {
			n++
		}
	}
	return n
}

func TestDecideWithFixedKeysReusesOnlyTheSamePosition(t *testing.T) {
	base := ids(1, 300)
	target := slices.Concat(base[:100], base[101:])
	a := Align(t.Context(), target, []Reference{{Tokens: base}}, IdentitySigner(1), 48)
	p := Decide(t.Context(), a, Rules{Fixed: true})
	if n := p.count(Reused); n != 100 {
		t.Errorf("%d tokens reused, want the 100 that did not move", n)
	}
	NewSchedule(p, Costs{Token: 1}, Limits{Budget: 0})
	for i, tok := range p.Tokens {
		if tok.Reason == Fuzzy && int(tok.Pos) != i {
			t.Fatalf("token %d is taken over from position %d", i, tok.Pos)
		}
	}
}

// A number that differs is followed as far where keys cannot be moved.
func TestDecideWithFixedKeysFollowsCriticalTokens(t *testing.T) {
	var x text
	a := Align(t.Context(), x.tokens("a word more than "+strings.Replace(story, "narrow", "40", 1)), []Reference{{Tokens: x.tokens(story)}}, IdentitySigner(1), 4)
	p := Decide(t.Context(), a, Rules{Critical: AllClasses, Pieces: x.piece, Fixed: true})
	if got := p.Tokens[9].Reason; got != Critical {
		t.Errorf("a number that differs and moved is %s, want critical", got)
	}
}

// What a deletion leaves behind is recomputed though the token right behind it differs
// too.
func TestDecideRecomputesAfterADeletionBeforeAChange(t *testing.T) {
	f := func(deleted, want string) {
		t.Helper()
		reference := strings.Replace(story, "narrow", deleted+" narrow", 1)
		if got := reasons(t, reference, strings.Replace(story, "narrow", "winding", 1)); !strings.HasPrefix(got, want) {
			t.Errorf("%q is gone:\n got %s\nwant %s…", deleted, got, want)
		}
	}
	f("dusty", "rrrrrlfr")
	f("40", "rrrrrlfffr")
}

// What follows a long deletion is recomputed as after a critical one at least, however
// short a seam is.
func TestDecideRecomputesAfterALongDeletion(t *testing.T) {
	base := ids(1, 1200)
	f := func(target []int32, want int) {
		t.Helper()
		p := Decide(t.Context(), Align(t.Context(), target, []Reference{{Tokens: base}}, IdentitySigner(1), 64), Rules{CriticalFollowers: 6, Seam: 4, FirstSeam: 4})
		if got := p.Recomputed() - 1; got != want {
			t.Errorf("%d tokens are recomputed, want %d", got, want)
		}
	}
	f(slices.Concat(base[:400], base[800:]), 6)
	f(slices.Concat(base[:400], ids(5000, 3), base[800:]), 3+6)
	f(slices.Concat(base[400:800], base[:400]), 4+4) // moved, not deleted
}

// Of capitalised words that open sentences nothing tells which are names, so those that
// differ count as names; where one is missing, or names are no matter, they do not.
func TestDecideTakesOpenersThatDifferForNames(t *testing.T) {
	f := func(old, new string, classes Class, want Reason) {
		t.Helper()
		var x text
		ref, tgt := x.tokens(story+". "+old+" owes him a lamp"), x.tokens(story+". "+new+" owes him a lamp")
		a := Align(t.Context(), tgt, []Reference{{Tokens: ref}}, IdentitySigner(1), 4)
		p := Decide(t.Context(), a, Rules{Critical: classes, Pieces: x.piece})
		if got := p.Tokens[27].Reason; got != want {
			t.Errorf("%s for %s is %s, want %s", new, old, got, want)
		}
	}
	f("Alice", "Bob", AllClasses, Critical)
	f("He", "Bob", AllClasses, Critical)
	f("Alice", "Bob", AllClasses&^Name, Fuzzy)
	f("who", "Bob", AllClasses, Fuzzy)
	f("and", "but", AllClasses, Fuzzy)
}

// TestDecideStopsWhenTimeIsUp, wherever that happens.
func TestDecideStopsWhenTimeIsUp(t *testing.T) {
	a := &Alignment{Target: make([]int32, 5*decideCheck), Refs: []Reference{{Tokens: make([]int32, 1)}}, Matches: make([]Match, 5*decideCheck)}
	r := Rules{WordShare: DefaultWordShare, CriticalFollowers: 6, Pieces: func(int32) string { return " word" }}
	all := &endsAfter{t.Context(), 1 << 30}
	if Decide(all, a, r) == nil {
		t.Fatal("nothing decided though there is time")
	}
	looks := 1<<30 - all.looks
	if looks < 15 {
		t.Errorf("looked %d times whether there is time, want three times for each %d tokens", looks, decideCheck)
	}
	for n := range looks {
		if Decide(&endsAfter{t.Context(), n}, a, r) != nil {
			t.Fatalf("decided though time was up at look %d of %d", n, looks)
		}
	}
}
