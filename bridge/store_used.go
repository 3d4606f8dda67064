package bridge

import (
	"io/fs"
	"os"
	"slices"
)

// Used reports whether a directory has files of any run, so that a server may hold what was
// composed there. One that cannot be read may.
func Used(dir string) bool {
	files, err := os.ReadDir(dir)
	return err != nil || slices.ContainsFunc(files, func(f fs.DirEntry) bool { return fileName.MatchString(f.Name()) })
}
