package bridge

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Used reports whether a directory has files of any run, so that a server may hold what was
// composed there. One that cannot be read may.
func Used(dir string) bool {
	files, err := os.ReadDir(dir)
	return err != nil || slices.ContainsFunc(files, func(f fs.DirEntry) bool { return fileName.MatchString(f.Name()) })
}

// ReferenceBytes is what the states of references in dir take, whoever made them.
func ReferenceBytes(dir string) int64 {
	files, _ := os.ReadDir(dir)
	var n int64
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".bin" || !fileName.MatchString(f.Name()) {
			continue
		}
		if st, err := f.Info(); err == nil {
			n += st.Size()
		}
	}
	return n
}
