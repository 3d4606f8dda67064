//go:build !linux && !darwin

package bridge

import (
	"errors"
	"fmt"
	"runtime"
)

// native has no library on this platform: LoadKernels says so, GoKernels serves.
type native struct{}

func (*native) compose([]LayerJob, []Run, *RoPE, int) error { return errors.ErrUnsupported }
func (*native) dequantize(uint32, []byte, []float32) error  { return errors.ErrUnsupported }
func (*native) signatures([]float32, int, int, []int32, []float32, []float32, int, []uint64, int) error {
	return errors.ErrUnsupported
}

// LoadKernels reports that there are no native kernels for this platform.
func LoadKernels(string) (*Kernels, error) {
	return nil, fmt.Errorf("kernels: no native library for %s/%s: %w", runtime.GOOS, runtime.GOARCH, errors.ErrUnsupported)
}
