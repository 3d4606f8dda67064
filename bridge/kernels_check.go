package bridge

import (
	"fmt"
	"math"
	"runtime"
	"slices"
)

// maxThreads bounds what one call may start.
const maxThreads = 64

// threadCount turns a caller's wish into a number of threads.
func threadCount(wish int) int {
	if wish <= 0 {
		wish = runtime.NumCPU()
	}
	return min(wish, maxThreads)
}

// validateCompose checks every size that composing relies on, so that neither the
// C code nor the Go code can leave the slices it is given.
func validateCompose(jobs []LayerJob, runs []Run, rope *RoPE) error {
	if rope != nil {
		if err := rope.validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrKernelInput, err)
		}
	}
	moves, err := validateRuns(runs, rope)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKernelInput, err)
	}
	for i := range jobs {
		if err := jobs[i].validate(runs, rope, moves); err != nil {
			return fmt.Errorf("%w: layer %d: %w", ErrKernelInput, i, err)
		}
	}
	return nil
}

// validateRuns checks the runs by themselves and tells whether any moves keys.
func validateRuns(runs []Run, rope *RoPE) (moves bool, err error) {
	ordered := true
	for i, r := range runs {
		switch {
		case r.Ref < 0 || r.Ref > math.MaxInt32 || r.Src < 0 || r.Dst < 0 || r.Len <= 0,
			int64(r.Src)+int64(r.Len) > math.MaxInt32, int64(r.Dst)+int64(r.Len) > math.MaxInt32:
			return false, fmt.Errorf("run %d: %+v: expected a reference, rows and a length from 0 up", i, r)
		case r.Delta != 0 && rope == nil:
			return false, fmt.Errorf("run %d moves keys by %d: expected 0, as this model's keys cannot move", i, r.Delta)
		}
		moves = moves || r.Delta != 0
		ordered = ordered && (i == 0 || r.Dst >= runs[i-1].Dst)
	}
	if !ordered {
		runs = slices.Clone(runs)
		slices.SortFunc(runs, func(a, b Run) int { return int(a.Dst) - int(b.Dst) })
	}
	for i := 1; i < len(runs); i++ {
		if runs[i].Dst < runs[i-1].Dst+runs[i-1].Len {
			return false, fmt.Errorf("two runs fill row %d: expected each row once", runs[i].Dst)
		}
	}
	return moves, nil
}

func (j *LayerJob) validate(runs []Run, rope *RoPE, moves bool) error {
	if err := j.validateKeys(rope, moves); err != nil {
		return err
	}
	if err := j.validateValues(); err != nil {
		return err
	}
	for r := range j.Sources {
		if err := j.validateRetyped(r); err != nil {
			return fmt.Errorf("reference %d: %w", r, err)
		}
	}
	for i, r := range runs {
		if r.Ref >= len(j.Sources) {
			return fmt.Errorf("run %d: reference %d: expected one of %d", i, r.Ref, len(j.Sources))
		}
		keys, values := j.sourceRows(r.Ref)
		if rowsIn(j.K, j.KRow) < int64(r.Dst)+int64(r.Len) || keys < int64(r.Src)+int64(r.Len) {
			return fmt.Errorf("run %d: %+v leaves the keys: target has %d rows, reference %d", i, r, rowsIn(j.K, j.KRow), keys)
		}
		to := rowsIn(j.V, j.VRow)
		if j.VTrans && j.hasValues() {
			to = j.DstCells
		}
		if to < int64(r.Dst)+int64(r.Len) || values < int64(r.Src)+int64(r.Len) {
			return fmt.Errorf("run %d: %+v leaves the values: target has %d rows, reference %d", i, r, to, values)
		}
	}
	return nil
}

// rowsIn counts whole rows; a half that is left out has any number.
func rowsIn(b []byte, row int64) int64 {
	if row == 0 {
		return math.MaxInt64
	}
	return int64(len(b)) / row
}

// sourceRows is how many cells reference r has of either half.
func (j *LayerJob) sourceRows(r int) (keys, values int64) {
	src := &j.Sources[r]
	keyRow, valueRow, columns := j.KRow, j.VRow, j.VTrans
	if src.Retyped && j.KRow != 0 {
		keyRow = j.sourceSide(src, r, false).row
	}
	if src.Retyped && j.hasValues() {
		valueRow, columns = j.sourceSide(src, r, true).row, src.VTrans
	}
	keys, values = rowsIn(src.K, keyRow), rowsIn(src.V, valueRow)
	if columns && j.hasValues() {
		values = j.SrcCells[r]
	}
	return keys, values
}

// validateRetyped checks that both halves of reference r, if it is of other types,
// can become the job's.
func (j *LayerJob) validateRetyped(r int) error {
	src := &j.Sources[r]
	if !src.Retyped {
		return nil
	}
	if j.KRow != 0 {
		width, err := validateWidth(j.KType, j.KRow)
		if err == nil {
			err = validateType(src.KType, width, false)
		}
		if err != nil {
			return fmt.Errorf("keys: %w", err)
		}
	}
	if !j.hasValues() {
		return nil
	}
	width, err := j.VWidth, validateType(j.VType, j.VWidth, j.VTrans)
	if _, bytes := j.VType.BlockSize(); j.VTrans && err == nil && j.VElem != int64(bytes) {
		err = fmt.Errorf("elements of %d bytes: %s has %d", j.VElem, j.VType, bytes)
	}
	if !j.VTrans {
		width, err = validateWidth(j.VType, j.VRow)
	}
	if err == nil {
		err = validateType(src.VType, width, src.VTrans)
	}
	if err != nil {
		return fmt.Errorf("values: %w", err)
	}
	if src.VTrans {
		return j.validateColumns(src, r, width)
	}
	return nil
}

// validateColumns checks the size of a retyped reference's transposed values.
func (j *LayerJob) validateColumns(src *LayerSource, r int, width int64) error {
	if r >= len(j.SrcCells) {
		return fmt.Errorf("transposed values: cells of %d references: expected %d", len(j.SrcCells), len(j.Sources))
	}
	_, bytes := src.VType.BlockSize()
	if cells := j.SrcCells[r]; cells < 0 || cells > math.MaxInt32 || cells > int64(len(src.V))/(width*int64(bytes)) {
		return fmt.Errorf("transposed values: %d bytes: expected %d x %d x %d", len(src.V), width, cells, bytes)
	}
	return nil
}

// validateWidth returns the elements of a row of that many bytes.
func validateWidth(t KVType, row int64) (int64, error) {
	if !t.IsCache() {
		return 0, fmt.Errorf("%s: expected a cache type", t)
	}
	width, err := t.rowElems(row)
	if err != nil {
		return 0, err
	}
	return int64(width), validateType(t, int64(width), false)
}

// validateType checks that cells of width elements can have the type.
func validateType(t KVType, width int64, trans bool) error {
	elems, _ := t.BlockSize()
	switch {
	case !t.IsCache():
		return fmt.Errorf("%s: expected a cache type", t)
	case width > math.MaxInt32 || width%int64(elems) != 0:
		return fmt.Errorf("rows of %d elements: %s needs a multiple of %d", width, t, elems)
	case trans && elems != 1:
		return fmt.Errorf("transposed %s: expected f32, f16 or bf16", t)
	}
	return nil
}

func (j *LayerJob) validateKeys(rope *RoPE, moves bool) error {
	switch {
	case j.KRow < 0:
		return fmt.Errorf("key rows of %d bytes: expected at least 0", j.KRow)
	case j.KRow == 0 && len(j.K) != 0:
		return fmt.Errorf("key rows of 0 bytes in %d: expected more", len(j.K))
	case j.KRow == 0 || !moves:
		return nil
	case !j.KType.IsCache():
		return fmt.Errorf("keys of %s: expected a cache type", j.KType)
	}
	elems, err := j.KType.rowElems(j.KRow)
	switch {
	case err != nil:
		return fmt.Errorf("keys: %w", err)
	case elems > math.MaxInt32 || elems%rope.HeadDim != 0:
		return fmt.Errorf("key rows of %d elements: expected whole heads of %d", elems, rope.HeadDim)
	case j.KRot < 0 || j.KRot&(j.KRot-1) != 0 || j.KRot > 0 && rope.HeadDim%int(j.KRot) != 0:
		return fmt.Errorf("keys turned in blocks of %d: expected a power of 2 that divides %d", j.KRot, rope.HeadDim)
	}
	return nil
}

func (j *LayerJob) hasValues() bool {
	if j.VTrans {
		return j.VWidth != 0
	}
	return j.VRow != 0
}

func (j *LayerJob) validateValues() error {
	if !j.VTrans {
		if j.VRow < 0 || j.VRow == 0 && len(j.V) != 0 {
			return fmt.Errorf("value rows of %d bytes in %d: expected more", j.VRow, len(j.V))
		}
		return nil
	}
	switch {
	case j.VRow != 0:
		return fmt.Errorf("transposed values with rows of %d bytes: expected 0", j.VRow)
	case j.VWidth < 0 || j.VElem < 0 || j.VWidth > math.MaxInt32 || j.VElem > math.MaxInt32,
		j.DstCells < 0 || j.DstCells > math.MaxInt32:
		return fmt.Errorf("transposed values of %d x %d elements of %d bytes: expected sizes from 0 up", j.VWidth, j.DstCells, j.VElem)
	case j.VWidth == 0:
		return nil
	case j.VElem != 1 && j.VElem != 2 && j.VElem != 4:
		return fmt.Errorf("transposed values of %d bytes an element: expected 1, 2 or 4", j.VElem)
	case len(j.SrcCells) != len(j.Sources):
		return fmt.Errorf("transposed values: cells of %d references: expected %d", len(j.SrcCells), len(j.Sources))
	case int64(len(j.V)) < j.VWidth*j.VElem*j.DstCells:
		return fmt.Errorf("transposed values: %d bytes: expected %d x %d x %d", len(j.V), j.VWidth, j.DstCells, j.VElem)
	}
	for r, cells := range j.SrcCells {
		if j.Sources[r].Retyped {
			continue
		}
		if cells < 0 || cells > math.MaxInt32 || int64(len(j.Sources[r].V)) < j.VWidth*j.VElem*cells {
			return fmt.Errorf("transposed values: reference %d has %d bytes: expected %d x %d x %d", r, len(j.Sources[r].V), j.VWidth, cells, j.VElem)
		}
	}
	return nil
}
