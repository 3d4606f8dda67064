package matcher

// nearJump is how far apart, in tokens, two neighbouring runs may lie, in the source
// or in the target, for the step between them to count as an edit and not as a seam. A
// sentence inserted or deleted is an edit; another passage is a seam.
const nearJump = 192

// jumps reports whether a source that goes from one position to another does not go on
// nearby.
func jumps(fromRef int16, from int32, toRef int16, to int32) bool {
	return fromRef != toRef || to <= from || to-from > nearJump
}

// chain picks from the segments a sequence that does not overlap in the target
// and covers the most tokens, each jump of the source costing what its seam
// will at most cost to recompute. It is the usual sparse dynamic programme over maximal
// matches (Ohlebusch & Abouelhoda, Chaining Algorithms), except that the source
// may jump anywhere, so that moved passages are found.
func chain(segs []segment, seam int) []segment {
	n := len(segs)
	best := make([]float64, n)
	from := make([]int, n)
	top := -1
	for i, s := range segs {
		best[i], from[i] = float64(s.n)-startCost(s, seam), -1
		for j := range i {
			p := segs[j]
			if p.t >= s.t || p.end() >= s.end() {
				continue
			}
			overlap := max(0, p.end()-s.t)
			if v := best[j] + float64(s.n-overlap) - jumpCost(p, s, seam); v > best[i] {
				best[i], from[i] = v, j
			}
		}
		if best[i] > 0 && (top < 0 || best[i] > best[top]) {
			top = i
		}
	}
	return unwind(segs, from, top)
}

// unwind follows the choices back from the last segment and trims each so that
// it starts where the one before it ends.
func unwind(segs []segment, from []int, last int) []segment {
	var out []segment
	for i := last; i >= 0; i = from[i] {
		out = append(out, segs[i])
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	for i := 1; i < len(out); i++ {
		if cut := out[i-1].end() - out[i].t; cut > 0 {
			out[i].t, out[i].r, out[i].n = out[i].t+cut, out[i].r+cut, out[i].n-cut
		}
	}
	return out
}

// startCost is nothing for a shared prefix, whose KV is exact, and a seam for
// a first run from elsewhere.
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
	drift := abs((s.t - s.r) - (p.t - p.r))
	return 1 + min(float64(drift)/16, float64(seam)/2)
}

// near reports whether s goes on where p left off, give or take an edit.
func near(p, s segment) bool {
	if p.ref != s.ref {
		return false
	}
	// Overlap in the target is cut off the later segment.
	cut := max(0, p.end()-s.t)
	skip := s.r + cut - p.rEnd()
	return skip >= 0 && skip <= nearJump
}

func abs(x int) int {
	if x < 0 {
		return -x
	}
	return x
}
