package matcher

import "testing"

// fromRef is a plan whose tokens come from stretches of one reference, each given by the
// position it starts at and its length.
func fromRef(stretches ...[2]int) *Plan {
	p := &Plan{}
	for _, s := range stretches {
		for i := range s[1] {
			p.Tokens = append(p.Tokens, PlanToken{Pos: int32(s[0] + i)})
		}
	}
	return p
}

// TestPassagesWhoseContextChangedAreSampled names the passages and counts their samples.
func TestPassagesWhoseContextChangedAreSampled(t *testing.T) {
	f := func(name string, p *Plan, passages []Span, samples int) {
		t.Helper()
		p.displace()
		p.sample()
		if len(p.Passages) != len(passages) {
			t.Fatalf("%s: passages %v: expected %v", name, p.Passages, passages)
		}
		for i, s := range passages {
			if p.Passages[i] != s {
				t.Errorf("%s: passage %v: expected %v", name, p.Passages[i], s)
			}
		}
		if n := p.count(Sample); n != samples {
			t.Errorf("%s: %d samples: expected %d", name, n, samples)
		}
		for i, token := range p.Tokens {
			if token.Reason == Sample && !within(i, passages) {
				t.Errorf("%s: token %d is a sample outside of %v", name, i, passages)
			}
		}
	}
	f("the same prompt", fromRef([2]int{0, 3000}), nil, 0)
	f("two documents exchanged", fromRef([2]int{0, 40}, [2]int{840, 800}, [2]int{40, 800}), []Span{{40, 840}, {840, 1640}}, 16)
	f("a long one, in passages", fromRef([2]int{3000, 2500}), []Span{{0, 1024}, {1024, 2048}, {2048, 2500}}, 30)
	f("a short one, more closely", fromRef([2]int{3000, 128}), []Span{{0, 128}}, 8)
	f("too short", fromRef([2]int{3000, 127}), nil, 0)
	f("a moved paragraph, short", fromRef([2]int{0, 1000}, [2]int{1800, 100}, [2]int{1000, 800}), nil, 0)
	f("a deletion", fromRef([2]int{0, 500}, [2]int{600, 1000}), nil, 0)

	f("behind what stands there once, and here three times", fromRef([2]int{0, 300}, [2]int{300, 800}, [2]int{300, 800}, [2]int{300, 800}, [2]int{1500, 300}),
		[]Span{{1100, 1900}, {1900, 2700}, {2700, 3000}}, 24)

	inserted := fromRef([2]int{0, 100})
	for range nearJump {
		inserted.Tokens = append(inserted.Tokens, PlanToken{Ref: -1, Reason: Unmatched})
	}
	inserted.Tokens[150] = PlanToken{Pos: 99, Reason: LowSimilarity} // like nothing, though it has a counterpart
	inserted.Tokens = append(inserted.Tokens, fromRef([2]int{100, 500}).Tokens...)
	f("behind an inserted passage", inserted, []Span{{100 + nearJump, 600 + nearJump}}, 8)

	short := fromRef([2]int{0, 1000}, [2]int{3000, 127})
	f("too short for samples", short, nil, 0)
	if len(short.Displaced) != 1 || short.Displaced[0] != (Span{1000, 1127}) {
		t.Errorf("a short passage whose context changed: displaced %v, expected it alone", short.Displaced)
	}
	if got := short.DisplacedShare(); got != 127./1127 {
		t.Errorf("127 of 1127 tokens are displaced, the share is %g", got)
	}

	rewritten := fromRef([2]int{0, 2048})
	for i := 4; i < len(rewritten.Tokens); i += 5 {
		rewritten.Tokens[i] = PlanToken{Ref: -1, Reason: Unmatched}
	}
	f("every fifth word rewritten", rewritten, nil, 0)
	if got := rewritten.DisplacedShare(); got < .99 {
		t.Errorf("every fifth word rewritten: displaced %v, expected nearly all, the first passage too", rewritten.Displaced)
	}

	opened := fromRef([2]int{0, 1024}) // most of what stands before its 200th token has changed
	for i := 20; i < 120; i++ {
		opened.Tokens[i] = PlanToken{Ref: -1, Reason: Unmatched}
	}
	f("rewritten where it begins", opened, nil, 0)
	if len(opened.Displaced) != 0 {
		t.Errorf("rewritten where it begins: displaced %v, expected none: at its end a tenth has changed", opened.Displaced)
	}

	differs := fromRef([2]int{3000, 1000})
	for i := range differs.Tokens {
		if i%2 == 0 {
			differs.Tokens[i] = PlanToken{Ref: -1, Reason: Unmatched}
		}
	}
	f("only tokens taken over are sampled", differs, []Span{{1, 1000}}, 8)
	for i := 0; i < 1000; i += 2 {
		if differs.Tokens[i].Reason != Unmatched {
			t.Fatalf("token %d, without a source, became %v", i, differs.Tokens[i].Reason)
		}
	}
}

func within(i int, spans []Span) bool {
	for _, s := range spans {
		if i >= s.From && i < s.To {
			return true
		}
	}
	return false
}
