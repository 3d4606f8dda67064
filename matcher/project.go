package matcher

import (
	"fmt"
	"math"
)

// ProjectGo is the Project that needs no library.
func ProjectGo(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64) error {
	if err := checkProject(rows, dim, pos, freqs, planes, bits, out); err != nil {
		return err
	}
	words := bits / 64
	row := make([]float32, dim)
	for i := range len(rows) / dim {
		copy(row, rows[i*dim:])
		if pos != nil {
			rotate(row, float64(pos[i]), freqs)
		}
		for w := range words {
			var word uint64
			for b := range 64 {
				if dot(row, planes[(w*64+b)*dim:][:dim]) >= 0 {
					word |= 1 << b
				}
			}
			out[i*words+w] = word
		}
	}
	return nil
}

// checkProject keeps every access of a projection within its slices.
func checkProject(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64) error {
	if dim <= 0 || bits <= 0 || bits%64 != 0 || len(rows)%dim != 0 {
		return fmt.Errorf("project: %d numbers in rows of %d to %d bits: want whole rows and a multiple of 64 bits", len(rows), dim, bits)
	}
	n := len(rows) / dim
	if len(planes) != bits*dim || len(out) != n*bits/64 {
		return fmt.Errorf("project: %d plane numbers and %d words out: want %d and %d", len(planes), len(out), bits*dim, n*bits/64)
	}
	if pos != nil && (len(pos) != n || len(freqs) != dim/2) {
		return fmt.Errorf("project: %d positions and %d frequencies: want %d and %d", len(pos), len(freqs), n, dim/2)
	}
	return nil
}

// rotate applies RoPE at a position to the pairs (2i, 2i+1).
func rotate(row []float32, pos float64, freqs []float32) {
	for i, f := range freqs {
		sin, cos := math.Sincos(pos * float64(f))
		a, b := float64(row[2*i]), float64(row[2*i+1])
		row[2*i] = float32(a*cos - b*sin)
		row[2*i+1] = float32(a*sin + b*cos)
	}
}

// dot has four sums, so that the additions need not wait for one another.
func dot(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	n := len(a) &^ 3
	b = b[:len(a)]
	for i := 0; i < n; i += 4 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
		s2 += a[i+2] * b[i+2]
		s3 += a[i+3] * b[i+3]
	}
	for i := n; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return s0 + s1 + s2 + s3
}
