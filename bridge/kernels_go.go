package bridge

import (
	"math"

	"golang.org/x/sync/errgroup"
)

// turn holds cosines and sines of one delta, one for each pair.
type turn struct{ cos, sin []float32 }

// turns works out the table of every distinct delta once.
func turns(runs []Run, rope *RoPE) map[int32]turn {
	tables := map[int32]turn{}
	for _, r := range runs {
		if _, ok := tables[r.Delta]; ok || r.Delta == 0 {
			continue
		}
		t := turn{make([]float32, rope.Dims/2), make([]float32, rope.Dims/2)}
		for i, f := range rope.Freqs {
			sin, cos := math.Sincos(float64(r.Delta) * float64(f))
			t.cos[i], t.sin[i] = float32(cos), float32(sin)
		}
		tables[r.Delta] = t
	}
	return tables
}

// goCompose is Compose in Go; its arguments are valid.
func goCompose(jobs []LayerJob, runs []Run, rope *RoPE, threads int) error {
	tables := turns(runs, rope)
	var g errgroup.Group
	g.SetLimit(threads)
	for i := range jobs {
		g.Go(func() error { jobs[i].composeKeys(runs, rope, tables); return nil })
		g.Go(func() error { jobs[i].composeValues(runs); return nil })
	}
	return g.Wait()
}

func (j *LayerJob) composeKeys(runs []Run, rope *RoPE, tables map[int32]turn) {
	if j.KRow == 0 {
		return
	}
	var m *mover
	for _, r := range runs {
		if j.Sources[r.Ref].Retyped {
			j.convert(r, false, rope, tables)
			continue
		}
		dst := j.K[int64(r.Dst)*j.KRow:][:int64(r.Len)*j.KRow]
		src := j.Sources[r.Ref].K[int64(r.Src)*j.KRow:][:int64(r.Len)*j.KRow]
		copy(dst, src)
		if r.Delta == 0 {
			continue
		}
		if m == nil {
			m = newMover(j, rope)
		}
		m.moveAll(dst, j.KRow, tables[r.Delta])
	}
}

func (j *LayerJob) composeValues(runs []Run) {
	if !j.hasValues() {
		return
	}
	for _, r := range runs {
		if j.Sources[r.Ref].Retyped {
			j.convert(r, true, nil, nil)
			continue
		}
		src := j.Sources[r.Ref].V
		if !j.VTrans {
			copy(j.V[int64(r.Dst)*j.VRow:][:int64(r.Len)*j.VRow], src[int64(r.Src)*j.VRow:])
			continue
		}
		for c := range j.VWidth {
			dst := j.V[(c*j.DstCells+int64(r.Dst))*j.VElem:][:int64(r.Len)*j.VElem]
			copy(dst, src[(c*j.SrcCells[r.Ref]+int64(r.Src))*j.VElem:])
		}
	}
}

// mover turns the keys of one row in place.
type mover struct {
	t            KVType
	rope         *RoPE
	rot          int
	row          []float32
	touched      []bool // blocks that hold an element that turns
	elems, bytes int
}

func newMover(j *LayerJob, rope *RoPE) *mover {
	n, _ := j.KType.rowElems(j.KRow)
	m := &mover{t: j.KType, rope: rope, rot: int(j.KRot), row: make([]float32, n)}
	m.elems, m.bytes = j.KType.BlockSize()
	m.touched = make([]bool, n/m.elems)
	for e := range n {
		if m.rot > 1 || e%rope.HeadDim < rope.Dims {
			m.touched[e/m.elems] = true
		}
	}
	return m
}

// moveAll moves rows of size bytes.
func (m *mover) moveAll(rows []byte, size int64, t turn) {
	for ; len(rows) > 0; rows = rows[size:] {
		m.move(rows[:size], t)
	}
}

// move unpacks a row, turns it, and packs the blocks that may have changed: packing
// the others anew could alter what never moved.
func (m *mover) move(row []byte, t turn) {
	goDequantize(m.t, row, m.row)
	turnRow(m.row, m.rope, m.rot, t)
	pack := packers[m.t]
	for b, touched := range m.touched {
		if touched {
			pack(m.row[b*m.elems:(b+1)*m.elems], row[b*m.bytes:(b+1)*m.bytes])
		}
	}
}

// turnRow rotates all heads of a row that was turned in Hadamard blocks of rot.
func turnRow(row []float32, rope *RoPE, rot int, t turn) {
	for h := 0; h < len(row); h += rope.HeadDim {
		head := row[h : h+rope.HeadDim]
		hadamard(head, rot)
		turnHead(head[:rope.Dims], rope.NEOX, t)
		hadamard(head, rot)
	}
}

// turnHead rotates the pairs of one head: (x, y) to (x cos - y sin, x sin + y cos).
func turnHead(x []float32, neox bool, t turn) {
	pairs := len(x) / 2
	for i := range pairs {
		a, b := 2*i, 2*i+1
		if neox {
			a, b = i, i+pairs
		}
		x0, x1, c, s := x[a], x[b], t.cos[i], t.sin[i]
		x[a] = float32(x0*c) - float32(x1*s)
		x[b] = float32(x0*s) + float32(x1*c)
	}
}

// hadamard multiplies each block of n elements by the orthonormal Walsh-Hadamard
// matrix, which is its own inverse (llama.cpp: ggml_gen_hadamard).
func hadamard(x []float32, n int) {
	if n < 2 {
		return
	}
	norm := float32(1 / math.Sqrt(float64(n)))
	for len(x) >= n {
		for step := 1; step < n; step *= 2 {
			for i := 0; i < n; i += 2 * step {
				for j := i; j < i+step; j++ {
					x[j], x[j+step] = x[j]+x[j+step], x[j]-x[j+step]
				}
			}
		}
		for i := range n {
			x[i] *= norm
		}
		x = x[n:]
	}
}

// lanes is how many partial sums a product of two vectors is added up in: as many
// as the widest vector unit has lanes, so that every machine adds in one order and
// all sidecars of a fleet compute the same signatures.
const lanes = 16

// stride is the number of positions that share one exact angle; those between are
// reached by a second, small angle from a table.
const stride = 16

// goSignatures is Signatures in Go; its arguments are valid.
func goSignatures(rows []float32, n, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64, threads int) {
	const batch = 256
	steps := newAngles(freqs, pos)
	var g errgroup.Group
	g.SetLimit(threads)
	for first := 0; first < n; first += batch {
		g.Go(func() error {
			s := signer{dim: dim, planes: planes, words: bits / 64, row: make([]float32, dim)}
			s.angles = steps.clone()
			for r := first; r < min(n, first+batch); r++ {
				row := rows[r*dim : (r+1)*dim]
				if pos != nil {
					s.angles.apply(s.row, row, pos[r])
					row = s.row
				}
				s.project(row, out[r*s.words:(r+1)*s.words])
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
}

type signer struct {
	dim, words int
	planes     []float32
	row        []float32
	angles     *angles
}

func (s *signer) project(row []float32, out []uint64) {
	clear(out)
	for b := range 64 * s.words {
		if dot(row, s.planes[b*s.dim:(b+1)*s.dim]) > 0 {
			out[b/64] |= 1 << (b % 64)
		}
	}
}

// dot adds up in lanes, element i in lane i%lanes, then folds the lanes in halves.
func dot(x, y []float32) float32 {
	var sum [lanes]float32
	for len(x) >= lanes {
		x16, y16 := (*[lanes]float32)(x), (*[lanes]float32)(y)
		for l := range lanes {
			sum[l] += float32(x16[l] * y16[l])
		}
		x, y = x[lanes:], y[lanes:]
	}
	for l := range x {
		sum[l] += float32(x[l] * y[l])
	}
	return fold(&sum)
}

// fold adds up the lanes in halves.
func fold(sum *[lanes]float32) float32 {
	for w := lanes / 2; w > 0; w /= 2 {
		for l := range w {
			sum[l] += sum[l+w]
		}
	}
	return sum[0]
}

// angles turns embedding rows to their positions. Position p is split into a
// multiple of stride, whose angle is worked out once for all that share it, and the
// rest, whose angle is in a table.
type angles struct {
	freqs          []float32
	smallC, smallS []float64 // stride x pairs
	base           int32
	baseC, baseS   []float64
}

func newAngles(freqs []float32, pos []int32) *angles {
	if pos == nil {
		return nil
	}
	n := len(freqs)
	a := &angles{freqs: freqs, smallC: make([]float64, stride*n), smallS: make([]float64, stride*n)}
	for r := range stride {
		for i, f := range freqs {
			a.smallS[r*n+i], a.smallC[r*n+i] = math.Sincos(float64(r) * float64(f))
		}
	}
	return a
}

// clone shares the table, not the scratch.
func (a *angles) clone() *angles {
	if a == nil {
		return nil
	}
	c := *a
	c.base = 1 // no multiple of stride
	c.baseC, c.baseS = make([]float64, len(a.freqs)), make([]float64, len(a.freqs))
	return &c
}

func (a *angles) apply(dst, src []float32, pos int32) {
	rest := pos & (stride - 1)
	if base := pos - rest; base != a.base {
		a.base = base
		for i, f := range a.freqs {
			a.baseS[i], a.baseC[i] = math.Sincos(float64(base) * float64(f))
		}
	}
	n := len(a.freqs)
	smallC, smallS := a.smallC[int(rest)*n:][:n], a.smallS[int(rest)*n:][:n]
	for i := range n {
		cos := float32(float64(a.baseC[i]*smallC[i]) - float64(a.baseS[i]*smallS[i]))
		sin := float32(float64(a.baseS[i]*smallC[i]) + float64(a.baseC[i]*smallS[i]))
		x, y := src[2*i], src[2*i+1]
		dst[2*i] = float32(x*cos) - float32(y*sin)
		dst[2*i+1] = float32(x*sin) + float32(y*cos)
	}
}
