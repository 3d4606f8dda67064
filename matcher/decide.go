package matcher

import "context"

// Rules are the settings of a route that decide which tokens are recomputed.
type Rules struct {
	// TokenSimilarity is the least likeness of two tokens' E-cache embeddings (cosine) for one to stand
	// in for the other.
	TokenSimilarity float32
	Critical        Class
	// Followers, CriticalFollowers and Seam are how many tokens are recomputed
	// after an unmatched run, after a critical one, and after the source jumps;
	// after most jumps it is a quarter of Seam (see decider.seam).
	Followers, CriticalFollowers, Seam int
	// WordShare is the share of the prompt's tokens that may be recomputed besides, so that
	// after every change at least CriticalFollowers tokens are.
	WordShare float64
	// FirstSeam is Seam where the passage opened its reference and now has other text
	// before it, which none of its keys and values has seen.
	FirstSeam int
	// Pieces gives tokens' texts, nil where they are not known.
	Pieces Pieces
	// Fixed: keys cannot be moved, so only tokens at the same position match.
	Fixed bool
	// nearFollowers are recomputed after a near counterpart.
	nearFollowers int
}

// DefaultTokenSimilarity separates, in the embedding tables of the models
// measured, words of one kind (synonyms and inflections, but opposites and two
// colours as well) from most that merely stand in the same place.
const DefaultTokenSimilarity = 0.35

// DefaultWordShare is enough for five words in two thousand tokens.
const DefaultWordShare = .015

// Decide turns an alignment into a plan: for each target token whether its
// counterpart's KV may be taken over or the token wants to be recomputed, and
// why. What a change leaves behind in the tokens right after it is recomputed
// as well (measured: without them a changed number is answered with the old
// one). The last token is always the backend's: its logits are the answer. Where few words
// changed, each counts as critical in that: embeddings do not tell an opposite from a
// synonym, and an answer that is about one reads it off the tokens behind it too (measured).
// It is nil where ctx ended first.
func Decide(ctx context.Context, a *Alignment, r Rules) *Plan {
	own := ownReasons(ctx, a, r)
	p := decide(ctx, a, r, own)
	if p == nil || r.WordShare == 0 {
		return p
	}
	r.Followers = max(r.Followers, r.CriticalFollowers)
	r.nearFollowers = r.Followers
	more := decide(ctx, a, r, own)
	if more == nil || float64(more.Recomputed()-p.Recomputed()) <= r.WordShare*float64(len(p.Tokens)) {
		return more
	}
	return p
}

// decide is nil where ctx ended first.
func decide(ctx context.Context, a *Alignment, r Rules, own []Reason) *Plan {
	p := &Plan{Tokens: make([]PlanToken, len(a.Matches))}
	for _, ref := range a.Refs {
		p.Refs = append(p.Refs, ref.ID)
	}
	d := decider{a: a, r: r, p: p, own: own, taken: -1}
	for i := range a.Matches {
		if i%decideCheck == 0 && ctx.Err() != nil {
			return nil
		}
		d.token(i)
	}
	if n := len(p.Tokens); n > 0 {
		p.Tokens[n-1].Reason = Tail
	}
	p.displace()
	return p
}

// decideCheck is after how many tokens it is looked whether there is time left: the word
// around each may have to be put together, which takes microseconds.
const decideCheck = 512

// ownReasons are what the tokens are by themselves; where ctx ends, only the first of them.
func ownReasons(ctx context.Context, a *Alignment, r Rules) []Reason {
	out := make([]Reason, len(a.Matches))
	for i := range out {
		if i%decideCheck == 0 && ctx.Err() != nil {
			break
		}
		out[i] = ownReason(a, r, i)
	}
	return out
}

// decider walks the target from left to right; owe tokens more are recomputed
// for reason why. taken is the latest that has a counterpart like it, -1 before the first.
type decider struct {
	a     *Alignment
	r     Rules
	p     *Plan
	own   []Reason // of the tokens by themselves
	taken int
	owe   int
	why   Reason
}

func (d *decider) token(i int) {
	m := d.a.Matches[i]
	out := PlanToken{Ref: m.Ref, Pos: m.Pos, Reason: d.own[i]}
	if stuck(d.a, d.r, i) {
		out.Ref = -1
	}
	if m.Ref >= 0 {
		d.afterJump(i)
	}
	switch out.Reason {
	case Critical:
		d.demand(d.r.CriticalFollowers, Follows)
	case Unmatched, LowSimilarity:
		d.demand(d.r.Followers, Follows)
	case Fuzzy:
		d.demand(d.r.nearFollowers, Follows)
	default:
		if d.owe > 0 {
			out.Reason = d.why
			d.owe--
		}
	}
	if !out.Reason.differs() {
		d.taken = i
	}
	d.p.Tokens[i] = out
}

// demand asks for n more recomputed tokens from the next one on.
func (d *decider) demand(n int, why Reason) {
	if n >= d.owe {
		d.owe, d.why = n, why
	}
}

// ownReason is the reason that token i has by itself.
func ownReason(a *Alignment, r Rules, i int) Reason {
	m := a.Matches[i]
	same := m.Ref >= 0 && m.Similarity == 1
	switch {
	case same && !stuck(a, r, i):
		return Reused
	case !same && (IsCritical(r.Pieces, a.Target, i, r.Critical) || replacesCritical(a, r, i)):
		return Critical
	case m.Ref < 0 || stuck(a, r, i):
		return Unmatched
	case m.Similarity < r.TokenSimilarity:
		return LowSimilarity
	}
	return Fuzzy
}

// stuck: the counterpart's keys would have to be moved, and cannot be.
func stuck(a *Alignment, r Rules, i int) bool {
	return r.Fixed && int(a.Matches[i].Pos) != i
}

// replacesCritical: the token stands where the reference had a critical one, or one that
// with it looks like another name.
func replacesCritical(a *Alignment, r Rules, i int) bool {
	m := a.Matches[i]
	if m.Ref < 0 {
		return false
	}
	ref := a.Refs[m.Ref].Tokens
	return IsCritical(r.Pieces, ref, int(m.Pos), r.Critical) || renames(r.Pieces, a.Target, i, ref, int(m.Pos), r.Critical)
}

// afterJump demands recomputing where the source does not go on right behind
// the token before: a deletion leaves traces in the tokens after it, a seam in
// dozens, and so does a passage that was put in between (measured).
func (d *decider) afterJump(i int) {
	m := d.a.Matches[i]
	if i-d.taken > nearJump {
		d.seam(i)
		return
	}
	if i == 0 {
		if m.Pos != 0 {
			d.seam(i)
		}
		return
	}
	if p := d.a.Matches[i-1]; p.Ref >= 0 {
		d.afterStep(p, i)
	} else {
		d.afterInsertion(i)
	}
}

// afterStep demands recomputing after the source went from p to token i's counterpart.
// Of a long deletion it is not looked up what it had: something critical, most likely.
func (d *decider) afterStep(p Match, i int) {
	m := d.a.Matches[i]
	switch {
	case jumps(p.Ref, p.Pos, m.Ref, m.Pos):
		d.seam(i)
		if p.Ref == m.Ref && m.Pos > p.Pos {
			d.demand(d.r.CriticalFollowers, Follows)
		}
	case m.Pos > p.Pos+1:
		d.demand(d.lost(m.Ref, p.Pos+1, m.Pos), Follows)
	}
}

// earlyTokens is how many tokens before a token make a context with which its keys and
// values change little.
const earlyTokens = 256

// seam demands recomputing after the source jumped to token i. Where the passage
// stands near the start of the prompt, or stood near that of its reference, so that it
// gains or loses most of its context, dozens of its tokens are off: of keys .1 of the
// variance and more in its first 64. Elsewhere it is that much in its first 16 alone
// (Qwen2.5-0.5B, documents in another order).
func (d *decider) seam(i int) {
	opened, opens := int(d.a.Matches[i].Pos) < earlyTokens, i < earlyTokens
	switch {
	case opened && !opens:
		d.demand(d.r.FirstSeam, Seam)
	case opens:
		d.demand(d.r.Seam, Seam)
	default:
		d.demand((d.r.Seam+3)/4, Seam)
	}
}

// afterInsertion looks past tokens without a counterpart for where the source
// was last.
func (d *decider) afterInsertion(i int) {
	for j := i - 1; j >= 0; j-- {
		if p := d.a.Matches[j]; p.Ref >= 0 {
			d.afterStep(p, i)
			return
		}
	}
	if d.a.Matches[i].Pos > nearJump {
		d.seam(i)
	}
}

// lost is how many tokens must follow a deletion of ref[from:to].
func (d *decider) lost(ref int16, from, to int32) int {
	for p := from; p < to; p++ {
		if IsCritical(d.r.Pieces, d.a.Refs[ref].Tokens, int(p), d.r.Critical) {
			return d.r.CriticalFollowers
		}
	}
	return d.r.Followers
}
