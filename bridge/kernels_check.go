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
	for i, r := range runs {
		if r.Ref >= len(j.Sources) {
			return fmt.Errorf("run %d: reference %d: expected one of %d", i, r.Ref, len(j.Sources))
		}
		src := j.Sources[r.Ref]
		if rowsIn(j.K, j.KRow) < int64(r.Dst)+int64(r.Len) || rowsIn(src.K, j.KRow) < int64(r.Src)+int64(r.Len) {
			return fmt.Errorf("run %d: %+v leaves the keys: target has %d rows, reference %d", i, r, rowsIn(j.K, j.KRow), rowsIn(src.K, j.KRow))
		}
		to, from := rowsIn(j.V, j.VRow), rowsIn(src.V, j.VRow)
		if j.VTrans && j.hasValues() {
			to, from = j.DstCells, j.SrcCells[r.Ref]
		}
		if to < int64(r.Dst)+int64(r.Len) || from < int64(r.Src)+int64(r.Len) {
			return fmt.Errorf("run %d: %+v leaves the values: target has %d rows, reference %d", i, r, to, from)
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
		if cells < 0 || cells > math.MaxInt32 || int64(len(j.Sources[r].V)) < j.VWidth*j.VElem*cells {
			return fmt.Errorf("transposed values: reference %d has %d bytes: expected %d x %d x %d", r, len(j.Sources[r].V), j.VWidth, cells, j.VElem)
		}
	}
	return nil
}
