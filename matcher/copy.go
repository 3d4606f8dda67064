package matcher

// A passage that opened its prompt was computed with nothing before it, and where it
// stands behind others in a target its keys and values are further off than those of any
// other. A reference may therefore hold its opening twice: as it was, and once more,
// computed behind the rest of the prompt. Alignment goes by the prompt as it was; a
// passage that stands behind others then comes out of the copy.

// Copy says that the last Len tokens of a reference are those from From on once more;
// the zero value is none.
type Copy struct{ From, Len int }

// prompt is the reference without its copy.
func (r *Reference) prompt() []int32 { return r.Tokens[:len(r.Tokens)-r.Copy.Len] }

// copied reports whether a position is one of the copy.
func (r *Reference) copied(pos int32) bool { return int(pos) >= len(r.prompt()) }

// preferCopies has what opened its reference, and stands behind other text in the
// target, come out of the copy.
func (a *Alignment) preferCopies() {
	var behind bool
	last := Match{Ref: -1}
	for i, m := range a.Matches {
		if m.Ref < 0 {
			continue
		}
		if last.Ref < 0 || jumps(last.Ref, last.Pos, m.Ref, m.Pos) {
			behind = opened(m.Pos, i)
		}
		last = m
		c := a.Refs[m.Ref].Copy
		if at := int(m.Pos) - c.From; behind && at >= 0 && at < c.Len {
			a.Matches[i].Pos = int32(len(a.Refs[m.Ref].prompt()) + at)
		}
	}
}

// opened reports whether a passage whose first token is i of the target, and pos of its
// reference, had little before it there and has much before it now.
func opened(pos int32, i int) bool { return pos < EarlyTokens && i >= EarlyTokens }
