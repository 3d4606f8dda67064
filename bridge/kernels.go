package bridge

import (
	"errors"
	"fmt"
	"math"
)

// ErrKernelInput is wrapped by every error about arguments that a kernel refuses.
var ErrKernelInput = errors.New("kernels: bad input")

// Run is a stretch of consecutive cells that one reference supplies: its rows
// Src, Src+1, ... go to the target's rows Dst, Dst+1, ..., Len of them, and their
// keys are turned by Delta positions.
type Run struct {
	Ref           int
	Src, Dst, Len int32
	Delta         int32
}

// AppendRun appends r to runs, or lengthens the last of them if r goes on where it ends.
func AppendRun(runs []Run, r Run) []Run {
	if len(runs) == 0 {
		return append(runs, r)
	}
	last := &runs[len(runs)-1]
	if last.Ref != r.Ref || last.Delta != r.Delta || last.Src+last.Len != r.Src || last.Dst+last.Len != r.Dst {
		return append(runs, r)
	}
	last.Len += r.Len
	return runs
}

// LayerSource holds one reference's keys and values of one layer, as they lie in
// its state file. It is only read.
type LayerSource struct {
	K, V []byte

	// Retyped says that they lie otherwise than the job's: keys as KType and values
	// as VType, in rows of as many elements, values in columns where VTrans.
	Retyped      bool
	KType, VType KVType
	VTrans       bool
}

// LayerJob is what there is to do for one layer: where the keys and values go, and
// where they come from, Sources[r] being that of Run.Ref == r. An empty K or V
// (with a row size of 0) leaves that half of the layer out.
//
// Keys lie as rows of KRow bytes, one a cell. So do values, unless VTrans: then V
// is VWidth columns, one after another, each of DstCells elements of VElem bytes
// (SrcCells[r] elements in reference r).
type LayerJob struct {
	K, V         []byte
	KType, VType KVType
	// KRow and VRow are bytes of a row.
	KRow, VRow int64
	Sources    []LayerSource

	VTrans   bool
	VElem    int64
	VWidth   int64
	DstCells int64
	SrcCells []int64

	// KRot is the side of the Hadamard blocks by which llama.cpp turned the keys
	// before it stored them (n_rot_k of a state file); 0 where it did not.
	KRot int32
}

// Kernels computes on KV caches and embeddings, in native code where the library
// could be loaded and else in Go, with the same results: keys and values agree
// bit for bit, signatures up to bits whose projection is 0 within rounding. It is
// safe for concurrent use.
type Kernels struct {
	name   string
	native *native
}

// GoKernels returns the kernels in pure Go.
func GoKernels() *Kernels { return &Kernels{name: "go"} }

// Name tells which code runs, such as "native avx512 2 threads" or "go".
func (k *Kernels) Name() string { return k.name }

// Compose gathers the rows of all runs into all layers' K and V, turning the keys
// by each run's delta and converting rows of retyped sources, with up to threads
// threads (0 means one for each CPU). Rows that no run names keep their content.
// Destinations may be memory-mapped; they must not overlap sources, nor runs'
// destinations one another. rope may be nil if every Delta is 0. On an error that
// wraps ErrKernelInput nothing was written. It allocates little and keeps no
// reference to its arguments.
func (k *Kernels) Compose(jobs []LayerJob, runs []Run, rope *RoPE, threads int) error {
	if err := validateCompose(jobs, runs, rope); err != nil {
		return err
	}
	if k.native != nil {
		return k.native.compose(jobs, runs, rope, threadCount(threads))
	}
	return goCompose(jobs, runs, rope, threadCount(threads))
}

// Dequantize writes the values of the packed row src, of any ggml type that
// BlockSize knows, to dst, whose length decides how many there are.
func (k *Kernels) Dequantize(t KVType, src []byte, dst []float32) error {
	want, err := t.RowBytes(len(dst))
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrKernelInput, err)
	case len(src) != want:
		return fmt.Errorf("%w: %d bytes for %d values of %s: expected %d", ErrKernelInput, len(src), len(dst), t, want)
	case len(dst) == 0:
		return nil
	}
	if k.native != nil {
		return k.native.dequantize(uint32(t), src, dst)
	}
	goDequantize(t, src, dst)
	return nil
}

// Signatures projects rows onto random planes and keeps the signs: bit b of row r,
// which is bit b%64 of out[r*bits/64 + b/64], is set where the product of plane b
// and row r is more than 0. rows holds n rows of dim values, planes bits rows of
// dim values. With pos (n positions; nil leaves rows as they are) pair (2i, 2i+1)
// of a row is first turned by pos * freqs[i] radians, freqs being dim/2 long.
// bits is a multiple of 64.
func (k *Kernels) Signatures(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64, threads int) error {
	n, err := validateSignatures(rows, dim, pos, freqs, planes, bits, out)
	if err != nil || n == 0 {
		return err
	}
	if k.native != nil {
		return k.native.signatures(rows, n, dim, pos, freqs, planes, bits, out, threadCount(threads))
	}
	goSignatures(rows, n, dim, pos, freqs, planes, bits, out, threadCount(threads))
	return nil
}

func validateSignatures(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64) (n int, err error) {
	fail := func(format string, args ...any) (int, error) {
		return 0, fmt.Errorf("%w: signatures: "+format, append([]any{ErrKernelInput}, args...)...)
	}
	switch {
	case dim <= 0 || dim > math.MaxInt32 || len(rows)%dim != 0:
		return fail("%d values in rows of %d: expected whole rows", len(rows), dim)
	case bits <= 0 || bits%64 != 0 || bits > math.MaxInt32:
		return fail("%d bits: expected a multiple of 64", bits)
	case len(planes)/dim != bits || len(planes)%dim != 0:
		return fail("%d values of planes: expected %d x %d", len(planes), bits, dim)
	}
	n = len(rows) / dim
	switch {
	case len(out) != n*(bits/64):
		return fail("room for %d words: expected %d", len(out), n*(bits/64))
	case pos != nil && len(pos) != n:
		return fail("%d positions: expected %d", len(pos), n)
	case pos != nil && (dim%2 != 0 || len(freqs) != dim/2):
		return fail("%d frequencies for %d dimensions: expected half as many", len(freqs), dim)
	}
	return n, nil
}
