package bridge

import "errors"

type native struct{}

func (*native) compose([]LayerJob, []Run, *RoPE, int) error { return errors.ErrUnsupported }
func (*native) dequantize(uint32, []byte, []float32) error  { return errors.ErrUnsupported }
func (*native) signatures([]float32, int, int, []int32, []float32, []float32, int, []uint64, int) error {
	return errors.ErrUnsupported
}

// LoadKernels loads the native kernels from path.
func LoadKernels(path string) (*Kernels, error) { return nil, errors.ErrUnsupported }
