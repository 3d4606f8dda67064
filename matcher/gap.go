package matcher

// maxGapCells bounds the table of one gap's alignment, n*m; a larger gap is left
// unmatched (Alignment.gaps).
const maxGapCells = 1 << 18

// pairing is the counterpart of one target token within a gap: an offset into
// the gap's reference tokens, or -1, and how alike the two are (1 identical).
type pairing struct {
	r          int
	similarity float64
}

// likeness says how alike target token t and reference token r of a gap are,
// 1 for the same token. Offsets count from the gap's start.
type likeness func(t, r int) float64

// gapTable holds, for the first i target tokens and the first j reference tokens of a gap,
// at cell i*w+j, the best score of aligning them and its last step.
type gapTable struct {
	w     int
	score []float32
	step  []gapStep
	same  []bool // the last step pairs two identical tokens
}

type gapStep uint8

const (
	stepPair      gapStep = iota
	stepTarget            // the target's token has no counterpart
	stepReference         // the reference's token has no counterpart
)

// alignGap pairs the n target tokens of a gap with its m reference tokens, in order
// (Needleman and Wunsch, 1970): an identical pair scores 2, and half as much again when
// the pair before it was identical too, so that runs stay whole; a pair of unlike tokens
// scores half its likeness, so that synonyms stand opposite each other.
func alignGap(n, m int, like likeness) []pairing {
	w := m + 1
	t := gapTable{w, make([]float32, (n+1)*w), make([]gapStep, (n+1)*w), make([]bool, (n+1)*w)}
	for i := 1; i <= n; i++ {
		for j := 1; j <= m; j++ {
			t.fill(i*w+j, float32(like(i-1, j-1)))
		}
	}
	return t.pairings(n, m, like)
}

// fill decides cell c, at which two tokens meet that are s alike.
func (t *gapTable) fill(c int, s float32) {
	before := c - t.w - 1
	pair := t.score[before] + s/2
	if s == 1 {
		pair = t.score[before] + 2
		if t.same[before] {
			pair++
		}
	}
	t.score[c], t.step[c], t.same[c] = pair, stepPair, s == 1
	if up := t.score[c-t.w]; up > t.score[c] {
		t.score[c], t.step[c], t.same[c] = up, stepTarget, false
	}
	if left := t.score[c-1]; left > t.score[c] {
		t.score[c], t.step[c], t.same[c] = left, stepReference, false
	}
}

// pairings goes back through the table from its last cell.
func (t *gapTable) pairings(n, m int, like likeness) []pairing {
	out := make([]pairing, n)
	for i := range out {
		out[i].r = -1
	}
	for i, j := n, m; i > 0 && j > 0; {
		switch t.step[i*t.w+j] {
		case stepPair:
			i, j = i-1, j-1
			out[i] = pairing{j, like(i, j)}
		case stepTarget:
			i--
		case stepReference:
			j--
		}
	}
	return out
}
