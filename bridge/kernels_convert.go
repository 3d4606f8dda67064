package bridge

// side is how the keys or the values of a layer lie: rows of row bytes or, where
// trans, columns of cells elements.
type side struct {
	t     KVType
	width int // elements of a cell
	trans bool
	row   int64
	cells int64
}

// targetSide is the job's own; sourceSide that of a retyped reference r of it.
func (j *LayerJob) targetSide(values bool) side {
	switch {
	case !values:
		width, _ := j.KType.rowElems(j.KRow)
		return side{t: j.KType, width: width, row: j.KRow}
	case j.VTrans:
		return side{t: j.VType, width: int(j.VWidth), trans: true, cells: j.DstCells}
	}
	width, _ := j.VType.rowElems(j.VRow)
	return side{t: j.VType, width: width, row: j.VRow}
}

func (j *LayerJob) sourceSide(src *LayerSource, r int, values bool) side {
	s := side{t: src.KType, width: j.targetSide(values).width}
	if values {
		s.t, s.trans = src.VType, src.VTrans
	}
	if s.trans {
		s.cells = j.SrcCells[r]
		return s
	}
	row, _ := s.t.RowBytes(s.width)
	s.row = int64(row)
	return s
}

// load unpacks one cell.
func (s *side) load(from []byte, cell int64, x []float32) {
	if !s.trans {
		goDequantize(s.t, from[cell*s.row:][:s.row], x)
		return
	}
	_, bytes := s.t.BlockSize()
	for c := range x {
		at := (int64(c)*s.cells + cell) * int64(bytes)
		goDequantize(s.t, from[at:at+int64(bytes)], x[c:c+1])
	}
}

// store packs one cell.
func (s *side) store(to []byte, cell int64, x []float32) {
	if !s.trans {
		goQuantize(s.t, x, to[cell*s.row:][:s.row])
		return
	}
	_, bytes := s.t.BlockSize()
	for c := range x {
		at := (int64(c)*s.cells + cell) * int64(bytes)
		goQuantize(s.t, x[c:c+1], to[at:at+int64(bytes)])
	}
}

// convert takes over the cells of a run from a retyped reference.
func (j *LayerJob) convert(r Run, values bool, rope *RoPE, tables map[int32]turn) {
	src := &j.Sources[r.Ref]
	from, to := j.sourceSide(src, r.Ref, values), j.targetSide(values)
	in, out := src.K, j.K
	if values {
		in, out = src.V, j.V
	}
	turned := !values && r.Delta != 0
	if from.t == to.t && !from.trans && !to.trans {
		rows := out[int64(r.Dst)*to.row:][:int64(r.Len)*to.row]
		copy(rows, in[int64(r.Src)*from.row:])
		if turned {
			newMover(j, rope).moveAll(rows, to.row, tables[r.Delta])
		}
		return
	}
	x := make([]float32, to.width)
	for i := range int64(r.Len) {
		from.load(in, int64(r.Src)+i, x)
		if turned {
			turnRow(x, rope, int(j.KRot), tables[r.Delta])
		}
		to.store(out, int64(r.Dst)+i, x)
	}
}
