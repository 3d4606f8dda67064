package matcher

// What stands before a passage shows in the keys and values of all its tokens. Where
// something else stands there than in the reference, they are off, and largely all in
// the same way: on documents in another order half of what keys are off by, the keys
// turned back to position 0, was one vector a layer and passage (Qwen2.5-0.5B). So some
// of the passage's tokens are computed, as samples, and tell the agent how far the
// others are to be shifted.

const (
	// passageLength is up to how many tokens are shifted alike: half as long left a
	// tenth less of the error, and wants twice the samples.
	passageLength = 1024
	// sampleEvery tokens one is computed, of a short passage more often.
	sampleEvery = 96
	// leastSamples of a passage are computed: of passages of 300 tokens 4 took off less of
	// the loss, 16 hardly more, for twice the price.
	leastSamples = 8
	// A passage whose samples would stand closer than this is left as it is.
	closestSamples = 16
	// changedContext is the share of what stands before a passage that must be new to
	// it, or gone, for it to count as displaced. Most documents edited in eight places
	// come to a tenth, those with a tenth of the words rewritten to a sixth.
	changedContext = 0.15
	// shiftedContext is that share from which on it is shifted: samples have a price.
	shiftedContext = 0.25
)

// stretch is target tokens [From, To) that stand in order in one reference, from about
// src on.
type stretch struct {
	Span
	ref  int16
	src  int32
	kept int // tokens taken over
}

// displace names what of the stretches stands in another context, and as passages those
// that do so altogether, and of which so many tokens are taken over, that they are to be
// shifted.
func (p *Plan) displace() {
	stretches := p.stretches()
	for i, s := range stretches {
		kept := keptBefore(stretches[:i], s)
		if from := p.changedFrom(s, kept); from < s.To {
			p.Displaced = append(p.Displaced, Span{from, s.To})
		}
		change := contextChange(s.From, s.src, kept)
		if change >= shiftedContext && s.kept/leastSamples >= closestSamples {
			p.Passages = append(p.Passages, s.Span)
		}
	}
}

// DisplacedShare is the share of the prompt's tokens that stand in stretches whose context
// changed.
func (p *Plan) DisplacedShare() float64 {
	n := 0
	for _, s := range p.Displaced {
		n += s.To - s.From
	}
	return float64(n) / float64(max(1, len(p.Tokens)))
}

// sample marks some of the tokens that each passage takes over as Sample.
func (p *Plan) sample() {
	for _, s := range p.Passages {
		kept := 0
		for _, t := range p.Tokens[s.From:s.To] {
			if t.Reason == Reused {
				kept++
			}
		}
		p.sampleOf(s, min(sampleEvery, kept/leastSamples))
	}
}

// stretches cuts the plan where the source jumps, or a passage was put in between, and
// what is long into passages.
func (p *Plan) stretches() []stretch {
	var out []stretch
	last := int32(-1) // position of the latest token that has a source
	taken := -1       // the latest token that has a counterpart like it
	for i, t := range p.Tokens {
		if t.Ref < 0 {
			continue
		}
		s := len(out) - 1
		inserted := i-taken > nearJump && !t.Reason.differs()
		if s < 0 || inserted || jumps(out[s].ref, last, t.Ref, t.Pos) || i-out[s].From >= passageLength {
			out = append(out, stretch{Span: Span{i, i}, ref: t.Ref, src: t.Pos})
			s++
		}
		out[s].To = i + 1
		if t.Reason == Reused {
			out[s].kept++
		}
		if last = t.Pos; !t.Reason.differs() {
			taken = i
		}
	}
	return out
}

// keptBefore is how many tokens that stood before s in its reference were taken over to
// stand before it now; those that are computed anew, though they may be the same, do not
// count. before are the stretches before it.
func keptBefore(before []stretch, s stretch) int {
	kept := 0
	for _, b := range before {
		if b.ref == s.ref && b.src < s.src {
			kept += b.kept
		}
	}
	return kept
}

// contextChange is the share of a token's context that changed: 1 - kept / max(at, src), where
// at and src are its positions now and in the reference, and kept counts the tokens before it
// that stood before it there; those that stand here twice are no more than there were.
func contextChange(at int, src int32, kept int) float64 {
	stood := max(at, int(src))
	if stood == 0 {
		return 0 // nothing stands before it
	}
	return 1 - float64(min(kept, int(src)))/float64(stood)
}

// changedFrom is from which token of the stretch on so much of the context has changed
// that it counts as displaced, to the stretch's end; s.To where that has not. A document
// reworded all over comes to it within its first stretch.
func (p *Plan) changedFrom(s stretch, kept int) int {
	kept += s.kept
	from := s.To
	for i := s.To - 1; i >= s.From; i-- {
		t := p.Tokens[i]
		if t.Reason == Reused {
			kept--
		}
		if t.Ref < 0 {
			continue
		}
		if contextChange(i, t.Pos, kept) < changedContext {
			break
		}
		from = i
	}
	return from
}

// sampleOf marks one of every so many tokens that the passage takes over.
func (p *Plan) sampleOf(s Span, every int) {
	n := 0
	for i := s.From; i < s.To; i++ {
		t := &p.Tokens[i]
		if t.Reason != Reused {
			continue
		}
		if n%every == every/2 {
			t.Reason = Sample
		}
		n++
	}
}
