package bridge

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// fileStamp identifies the content of a file: if it is unchanged, so is the file.
type fileStamp struct {
	size, mtime int64
	inode       uint64
}

// stampOf returns the stamp of the file itself, targetStamp that of the file a link leads to,
// openStamp that of an open file.
func stampOf(path string) (fileStamp, error)     { return stampBy(unix.Lstat, path) }
func targetStamp(path string) (fileStamp, error) { return stampBy(unix.Stat, path) }
func openStamp(f *os.File) (fileStamp, error) {
	return stampBy(func(_ string, st *unix.Stat_t) error { return unix.Fstat(int(f.Fd()), st) }, f.Name())
}

func stampBy(stat func(string, *unix.Stat_t) error, path string) (fileStamp, error) {
	var st unix.Stat_t
	if err := stat(path, &st); err != nil {
		return fileStamp{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return fileStamp{st.Size, st.Mtim.Nano(), st.Ino}, nil
}
