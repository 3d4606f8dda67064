package bridge

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// mapping is a file in memory. Where it is not mapped it is another's, or (tests) plain memory.
type mapping struct {
	data   []byte
	mapped bool
}

// mapFile maps a regular file read-only. An empty file maps to no bytes.
func mapFile(path string) (*mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case st.Size() == 0:
		return &mapping{}, nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: path, Err: err}
	}
	return &mapping{data: data, mapped: true}, nil
}

// allocate makes f exactly size bytes long, with all of them backed: on a full
// filesystem that is an error here, where a write to a mapping of it would be a
// fatal signal. What is backed already is not gone through again: that would take
// as long as half of the composing.
func allocate(f *os.File, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if st.Size == size && st.Blocks*512 >= size {
		return nil
	}
	backed := st.Size > size && st.Blocks*512 >= st.Size
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("sizing %s to %d bytes: %w", f.Name(), size, err)
	}
	if backed {
		return nil
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil && err != unix.EOPNOTSUPP {
		return &fs.PathError{Op: fmt.Sprintf("allocate %d bytes for", size), Path: f.Name(), Err: err}
	}
	return nil
}

// mapWritable sizes f to size bytes and maps them for writing.
func mapWritable(f *os.File, size int64) (*mapping, error) {
	if err := allocate(f, size); err != nil {
		return nil, err
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, &fs.PathError{Op: "map", Path: f.Name(), Err: err}
	}
	// One call faults all pages in, where thousands of single faults would take
	// longer than the composing. Kernels before 5.14 do without.
	_ = unix.Madvise(data, unix.MADV_POPULATE_WRITE)
	return &mapping{data: data, mapped: true}, nil
}

func (m *mapping) close() error {
	if !m.mapped {
		m.data = nil
		return nil
	}
	data := m.data
	m.data, m.mapped = nil, false
	return unix.Munmap(data)
}
