package matcher

import "slices"

// Reason says why a target token is reused or recomputed.
type Reason uint8

const (
	Reused        Reason = iota // identical token of a reference, KV taken over
	Fuzzy                       // near-identical token of a reference, KV taken over
	Unmatched                   // no counterpart in any reference
	Critical                    // differs, and is a number, negation, name or identifier
	Follows                     // right after an unmatched or critical token
	Seam                        // first tokens after the source jumps
	LowSimilarity               // counterpart too far away in embedding space
	Bridged                     // between two recomputed runs, cheaper to recompute than to stage
	Cold                        // behind the point from which the prompt is computed cold
	Tail                        // the end that the backend always computes itself
	Hole                        // no counterpart and not recomputed: the position has no cell
	Sample                      // tells by how much the passage around it is off
	numReasons
)

var reasonNames = [numReasons]string{"reused", "fuzzy", "unmatched", "critical", "follows", "seam",
	"low-similarity", "bridged", "cold", "tail", "hole", "sample"}

func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Recomputed reports whether a token with this reason is computed by the
// backend rather than taken from a reference.
func (r Reason) Recomputed() bool { return r != Reused && r != Fuzzy && r != Hole }

// differs reports whether a token with this reason has no counterpart that is like it.
func (r Reason) differs() bool { return r == Unmatched || r == Critical || r == LowSimilarity }

// PlanToken is what becomes of one target token.
type PlanToken struct {
	Ref    int16 // index into Plan.Refs; -1: no source
	Reason Reason
	Pos    int32 // position in that reference
}

// Plan says for every target position which reference and which of its
// positions supply the KV, or that the token is recomputed, and why.
type Plan struct {
	Refs   []string // reference ids
	Tokens []PlanToken
	// Passages are stretches whose KV is off in the same way throughout, since other
	// text stands before them; by how much is measured at their Sample tokens.
	Passages []Span
	// Displaced are the parts of stretches before which other text stands than in their
	// reference, those too short for samples included.
	Displaced []Span
}

// Recomputed returns how many tokens the backend computes itself.
func (p *Plan) Recomputed() int {
	n := 0
	for _, t := range p.Tokens {
		if t.Reason.Recomputed() {
			n++
		}
	}
	return n
}

// Used returns how many tokens the plan takes from its reference i.
func (p *Plan) Used(i int) int {
	n := 0
	for _, t := range p.Tokens {
		if int(t.Ref) == i && (t.Reason == Reused || t.Reason == Fuzzy) {
			n++
		}
	}
	return n
}

// Composed reports whether the resulting KV may differ from the model's own. It does not if
// an exact prefix of one reference is all that the plan takes.
func (p *Plan) Composed() bool {
	prefix := 0
	for i, t := range p.Tokens {
		if t.Reason != Reused || int(t.Pos) != i || t.Ref != p.Tokens[0].Ref {
			break
		}
		prefix++
	}
	return slices.ContainsFunc(p.Tokens[prefix:], func(t PlanToken) bool { return !t.Reason.Recomputed() })
}
