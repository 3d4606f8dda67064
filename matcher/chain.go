package matcher

import (
	"context"
	"slices"
)

// nearJump is how far apart, in tokens, two neighbouring runs may lie, in the source
// or in the target, for the step between them to count as an edit and not as a seam. A
// sentence inserted or deleted is an edit; another passage is a seam.
const nearJump = 192

// maxLinks bounds how many pairs of segments are tried: of up to 2500 segments all, of more
// the nearest, and with each the best of those further back.
const maxLinks = 2500 * 2500

// jumps reports whether a source that goes from one position to another does not go on
// nearby.
func jumps(fromRef int16, from int32, toRef int16, to int32) bool {
	return fromRef != toRef || to <= from || to-from > nearJump
}

// chain picks from the segments a sequence that does not overlap in the target
// and covers the most tokens, each jump of the source costing what its seam
// will at most cost to recompute. It is the usual sparse dynamic programme over maximal
// matches (Ohlebusch & Abouelhoda, Chaining Algorithms), except that the source
// may jump anywhere, so that moved passages are found. It is nil where ctx ended first.
func chain(ctx context.Context, segs []segment, seam int) []segment {
	c := links{segs, seam, make([]float64, len(segs)), make([]int, len(segs))}
	top, far := -1, -1 // the best of all, and of those too far back
	back := maxLinks / max(1, len(segs))
	for i, s := range segs {
		if ctx.Err() != nil {
			return nil
		}
		c.best[i], c.from[i] = float64(s.n)-startCost(s, seam), -1
		first := max(0, i-back)
		for j := i - 1; j >= first; j-- {
			c.try(i, j)
		}
		if first > 0 {
			far = c.better(far, first-1)
			c.try(i, far)
		}
		if c.best[i] > 0 {
			top = c.better(top, i)
		}
	}
	return unwind(segs, c.from, top)
}

// links are for each segment what the best chain that ends with it is worth, in tokens, and
// which segment stands before it there, or -1.
type links struct {
	segs []segment
	seam int
	best []float64
	from []int
}

// better is the one of two segments that ends the better chain; i may be -1.
func (c *links) better(i, j int) int {
	if i < 0 || c.best[j] > c.best[i] {
		return j
	}
	return i
}

// try puts segment i behind j where that is better than what is known, or as good and j
// the earlier one.
func (c *links) try(i, j int) {
	p, s := c.segs[j], c.segs[i]
	if c.best[j]+float64(s.n) < c.best[i] || p.t >= s.t || p.end() >= s.end() {
		return
	}
	overlap := max(0, p.end()-s.t)
	v := c.best[j] + float64(s.n-overlap) - jumpCost(p, s, c.seam)
	if v > c.best[i] || v == c.best[i] && c.from[i] >= 0 {
		c.best[i], c.from[i] = v, j
	}
}

// unwind follows the choices back from the last segment and trims each so that
// it starts where the one before it ends.
func unwind(segs []segment, from []int, last int) []segment {
	var out []segment
	for i := last; i >= 0; i = from[i] {
		out = append(out, segs[i])
	}
	slices.Reverse(out)
	for i := 1; i < len(out); i++ {
		if cut := out[i-1].end() - out[i].t; cut > 0 {
			out[i].t, out[i].r, out[i].n = out[i].t+cut, out[i].r+cut, out[i].n-cut
		}
	}
	return out
}

// startCost is nothing for a shared prefix and for a run that stands where it stood, and a
// seam for a first run from elsewhere.
func startCost(s segment, seam int) float64 {
	if s.t == s.r || (s.t < nearJump && s.r < nearJump) {
		return 0
	}
	return float64(seam)
}

// jumpCost weighs the step from the end of p to the start of s, in tokens.
func jumpCost(p, s segment, seam int) float64 {
	if !near(p, s) {
		return float64(seam)
	}
	drift := (s.t - s.r) - (p.t - p.r)
	return 1 + min(float64(max(drift, -drift))/16, float64(seam)/2)
}

// near reports whether s goes on where p left off, give or take an edit.
func near(p, s segment) bool {
	if p.ref != s.ref {
		return false
	}
	// Overlap in the target is cut off the later segment.
	cut := max(0, p.end()-s.t)
	skip := s.r + cut - p.rEnd()
	return skip >= 0 && skip < nearJump
}
