package bridge

import "math"

// Witness is what a model's weights make of the end of the probe's prompt: the last token's
// keys and values in the first, the middle and the last layer. It is the same on every
// machine but for rounding, and another where the weights are: what differs between
// fine-tunes of one model adds up from layer to layer.
type Witness [][]float32

// leastAlike is the cosine from which on two rows are of the same weights. SmolLM2-135M with
// and without flash attention, which is as far as rounding takes it from itself, has .998 at
// least, in the last layer's values; with scales and offsets of its weights off by 1 % at
// random .945, by 2 % .82.
const leastAlike = 0.98

// witness reads it off the probe's state.
func (p Prober) witness(s *State) Witness {
	var w Witness
	n := len(s.Layout.Layers)
	for _, layer := range []int{0, n / 2, n - 1} {
		keys, values, err := p.byPosition(s, layer)
		if err != nil {
			return nil
		}
		w = append(w, lastOf(keys, s.Cells()), lastOf(values, s.Cells()))
	}
	return w
}

// lastOf is the last of n rows.
func lastOf(rows []float32, n int) []float32 { return rows[len(rows)/n*(n-1):] }

// Like tells whether two witnesses are of the same weights.
func (w Witness) Like(o Witness) bool { return w.alike(o) >= leastAlike }

// alike is the cosine of the rows that are least alike, -1 where there are others.
func (w Witness) alike(o Witness) float64 {
	if len(w) != len(o) {
		return -1
	}
	least := 1.0
	for i := range w {
		least = min(least, cosine(w[i], o[i]))
	}
	return least
}

// cosine is that of the angle between a and b, -1 where they cannot be compared.
func cosine(a, b []float32) float64 {
	if len(a) != len(b) {
		return -1
	}
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	switch {
	case aa == 0 && bb == 0:
		return 1
	case aa == 0 || bb == 0:
		return -1
	}
	return ab / math.Sqrt(aa*bb)
}
