package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// kernelVersion is the SEMSHARE_VERSION that the bindings below are written for.
const kernelVersion = 2

// The structs of semshare.h, field by field.
type (
	cRun struct{ ref, src, dst, len, delta int32 }

	cRope struct {
		//lint:ignore U1000 reserved stands for the C struct's padding
		neox, headDim, dims, reserved int32
		freqs                         *float32
	}

	cSource struct {
		k, v                *byte
		kSize, vSize, cells int64
		retyped             int32
		kType, vType        uint32
		vTrans              int32
	}

	cJob struct {
		k, v                                              *byte
		kSize, vSize, kRow, vRow, vElem, vWidth, dstCells int64
		sources                                           *cSource
		nSources, kRot                                    int32
		kType                                             uint32
		vTrans                                            int32
		vType                                             uint32
		//lint:ignore U1000 reserved stands for the C struct's padding
		reserved int32
	}
)

// native is a loaded libsemshare. The prototype in C stands above each function;
// `make check-bindings` compares them with semshare.h.
type native struct {
	// int32_t semshare_version(void);
	semshareVersion func() int32

	// const char * semshare_cpu(void);
	semshareCPU func() string

	// const char * semshare_error(int32_t status);
	semshareError func(status int32) string

	// int32_t semshare_compose(const struct semshare_job * jobs, int32_t n_jobs, const struct semshare_run * runs, int32_t n_runs, const struct semshare_rope * rope, int32_t n_threads);
	semshareCompose func(jobs *cJob, nJobs int32, runs *cRun, nRuns int32, rope *cRope, nThreads int32) int32

	// int32_t semshare_dequantize(uint32_t type, const uint8_t * src, int64_t src_size, float * dst, int64_t n);
	semshareDequantize func(t uint32, src *byte, srcSize int64, dst *float32, n int64) int32

	// int32_t semshare_signatures(const float * rows, int64_t n_rows, int32_t dim, const int32_t * pos, const float * freqs, const float * planes, int32_t bits, uint64_t * out, int32_t n_threads);
	semshareSignatures func(rows *float32, nRows int64, dim int32, pos *int32, freqs *float32, planes *float32, bits int32, out *uint64, nThreads int32) int32
}

// symbols lists what is bound, under its name in C.
func (n *native) symbols() map[string]any {
	return map[string]any{
		"semshare_cpu":        &n.semshareCPU,
		"semshare_error":      &n.semshareError,
		"semshare_compose":    &n.semshareCompose,
		"semshare_dequantize": &n.semshareDequantize,
		"semshare_signatures": &n.semshareSignatures,
	}
}

const libraryName = "libsemshare.so"

// LoadKernels loads the native kernels from path, or where path is empty from
// libsemshare.so beside the executable, or else in the folder bin beside the
// executable's own. The library stays loaded.
func LoadKernels(path string) (*Kernels, error) {
	if path != "" {
		return loadKernels(path)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("kernels: finding the executable's folder: %w", err)
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	dir := filepath.Dir(exe)
	for _, p := range []string{filepath.Join(dir, libraryName), filepath.Join(dir, "..", "bin", libraryName)} {
		if _, err := os.Stat(p); err == nil {
			return loadKernels(p)
		}
	}
	return nil, fmt.Errorf("kernels: no %s in %s nor in ../bin beside it: expected `make build` to have put it there", libraryName, dir)
}

func loadKernels(path string) (*Kernels, error) {
	path, err := filepath.Abs(path) // a bare name would search the system's folders
	if err != nil {
		return nil, fmt.Errorf("kernels: %w", err)
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("kernels: loading %s: %w", path, err)
	}
	n := &native{}
	if err := n.bind(handle, path); err != nil {
		return nil, errors.Join(err, purego.Dlclose(handle))
	}
	return &Kernels{name: fmt.Sprintf("native %s %d threads", n.semshareCPU(), threadCount(0)), native: n}, nil
}

// bind asks for the version before it looks at anything else.
func (n *native) bind(handle uintptr, path string) error {
	version, err := purego.Dlsym(handle, "semshare_version")
	if err != nil {
		return fmt.Errorf("kernels: %s is no libsemshare: %w", path, err)
	}
	purego.RegisterFunc(&n.semshareVersion, version)
	if found := n.semshareVersion(); found != kernelVersion {
		return fmt.Errorf("kernels: %s has version %d: expected %d", path, found, kernelVersion)
	}
	for name, function := range n.symbols() {
		at, err := purego.Dlsym(handle, name)
		if err != nil {
			return fmt.Errorf("kernels: %s: %w", path, err)
		}
		purego.RegisterFunc(function, at)
	}
	return nil
}

// statuses of enum semshare_status that callers tell apart.
const (
	statusOK     = 0
	statusMemory = -6
)

// failure turns a status into an error.
func (n *native) failure(what string, status int32) error {
	if status == statusOK {
		return nil
	}
	err := fmt.Errorf("kernels: %s: %s (status %d)", what, n.semshareError(status), status)
	if status == statusMemory {
		return err
	}
	return fmt.Errorf("%w: %w", ErrKernelInput, err)
}

// pin holds what a slice points to in place, and alive, while C reads and writes it, and
// returns that; nil for an empty one.
func pin[T any](p *runtime.Pinner, s []T) *T {
	if len(s) == 0 {
		return nil
	}
	at := unsafe.SliceData(s)
	p.Pin(at)
	return at
}

// cRuns returns runs as C and the agent's recipes have them.
func cRuns(runs []Run) []cRun {
	out := make([]cRun, len(runs))
	for i, r := range runs {
		out[i] = cRun{int32(r.Ref), r.Src, r.Dst, r.Len, r.Delta}
	}
	return out
}

func (n *native) compose(jobs []LayerJob, runs []Run, rope *RoPE, threads int) error {
	var p runtime.Pinner
	defer p.Unpin()
	cJobs := make([]cJob, len(jobs))
	for i := range jobs {
		cJobs[i] = jobs[i].toC(&p)
	}
	var cR *cRope
	if rope != nil {
		cR = &cRope{neox: b2i(rope.NEOX), headDim: int32(rope.HeadDim), dims: int32(rope.Dims), freqs: pin(&p, rope.Freqs)}
		p.Pin(cR)
	}
	status := n.semshareCompose(pin(&p, cJobs), int32(len(jobs)), pin(&p, cRuns(runs)), int32(len(runs)), cR, int32(threads))
	return n.failure("compose", status)
}

func (j *LayerJob) toC(p *runtime.Pinner) cJob {
	sources := make([]cSource, len(j.Sources))
	for i, s := range j.Sources {
		sources[i] = cSource{k: pin(p, s.K), v: pin(p, s.V), kSize: int64(len(s.K)), vSize: int64(len(s.V)),
			retyped: b2i(s.Retyped), kType: uint32(s.KType), vType: uint32(s.VType), vTrans: b2i(s.VTrans)}
		if i < len(j.SrcCells) {
			sources[i].cells = j.SrcCells[i]
		}
	}
	return cJob{
		k: pin(p, j.K), v: pin(p, j.V), kSize: int64(len(j.K)), vSize: int64(len(j.V)),
		kRow: j.KRow, vRow: j.VRow, vElem: j.VElem, vWidth: j.VWidth, dstCells: j.DstCells,
		sources: pin(p, sources), nSources: int32(len(sources)), kRot: j.KRot,
		kType: uint32(j.KType), vTrans: b2i(j.VTrans), vType: uint32(j.VType),
	}
}

func b2i(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

func (n *native) dequantize(t uint32, src []byte, dst []float32) error {
	var p runtime.Pinner
	defer p.Unpin()
	return n.failure("dequantize", n.semshareDequantize(t, pin(&p, src), int64(len(src)), pin(&p, dst), int64(len(dst))))
}

func (n *native) signatures(rows []float32, count, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64, threads int) error {
	var p runtime.Pinner
	defer p.Unpin()
	status := n.semshareSignatures(pin(&p, rows), int64(count), int32(dim), pin(&p, pos), pin(&p, freqs), pin(&p, planes), int32(bits), pin(&p, out), int32(threads))
	return n.failure("signatures", status)
}
