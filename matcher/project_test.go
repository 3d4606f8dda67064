package matcher

import "math"

// projectPlainly is a Project without anything clever.
func projectPlainly(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64) error {
	clear(out)
	for i := range len(rows) / dim {
		row := rows[i*dim:][:dim]
		if pos != nil {
			row = rotated(row, float64(pos[i]), freqs)
		}
		for b := range bits {
			var product float32
			for j, v := range planes[b*dim:][:dim] {
				product += v * row[j]
			}
			if product > 0 {
				out[(i*bits+b)/64] |= 1 << (b % 64)
			}
		}
	}
	return nil
}

// rotated is a row with RoPE applied at a position, to the pairs (2i, 2i+1).
func rotated(row []float32, pos float64, freqs []float32) []float32 {
	out := make([]float32, len(row))
	for i, f := range freqs {
		sin, cos := math.Sincos(pos * float64(f))
		a, b := float64(row[2*i]), float64(row[2*i+1])
		out[2*i] = float32(a*cos - b*sin)
		out[2*i+1] = float32(a*sin + b*cos)
	}
	return out
}
