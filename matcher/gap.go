package matcher

// maxGapCells bounds the table of one gap's alignment; a larger gap is left
// unmatched.
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

// alignGap pairs the tokens of a gap in order (Needleman and Wunsch, 1970): an
// identical pair scores 2, and half as much again when the pair before it was
// identical too, so that runs stay whole; a pair of unlike tokens scores half
// its likeness, so that synonyms stand opposite each other.
func alignGap(n, m int, like likeness) []pairing {
	out := make([]pairing, n)
	for i := range out {
		out[i].r = -1
	}
	if n == 0 || m == 0 || n*m > maxGapCells {
		return out
	}
	w := m + 1
	score := make([]float32, (n+1)*w)
	step := make([]uint8, (n+1)*w) // 0 pair, 1 skip target, 2 skip reference
	same := make([]bool, (n+1)*w)
	for j := 1; j <= m; j++ {
		step[j] = 2
	}
	for i := 1; i <= n; i++ {
		step[i*w] = 1
		for j := 1; j <= m; j++ {
			c := i*w + j
			s := float32(like(i-1, j-1))
			pair := score[c-w-1] + s/2
			if s == 1 {
				pair = score[c-w-1] + 2
				if same[c-w-1] {
					pair++
				}
			}
			score[c], step[c], same[c] = pair, 0, s == 1
			if up := score[c-w]; up > score[c] {
				score[c], step[c], same[c] = up, 1, false
			}
			if left := score[c-1]; left > score[c] {
				score[c], step[c], same[c] = left, 2, false
			}
		}
	}
	for i, j := n, m; i > 0 && j > 0; {
		switch step[i*w+j] {
		case 0:
			i, j = i-1, j-1
			out[i] = pairing{j, like(i, j)}
		case 1:
			i--
		default:
			j--
		}
	}
	return out
}
