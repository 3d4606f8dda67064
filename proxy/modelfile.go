package proxy

import (
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/semsharekv/semsharekv/bridge"
)

// modelFile is a model's file that could not be read, and may come to be readable: it is
// copied there, or opened to us. One goroutine uses it.
type modelFile struct {
	path string
	was  string // when it could not be read
	last string // at the last look
}

func watchModel(path string) modelFile { return modelFile{path: path, was: stateOfModel(path)} }

// stateOfModel is "" where there is no such file.
func stateOfModel(path string) string {
	stamp := bridge.ModelStamp(path)
	if stamp == "" {
		return ""
	}
	return stamp + strconv.FormatBool(unix.Access(path, unix.R_OK) == nil)
}

// isThere reports whether there is another file than there was, or it can be read now. It is
// what it was at the last look: one that changed in between is still being written.
func (f *modelFile) isThere() bool {
	now := stateOfModel(f.path)
	settled := now == f.last
	f.last = now
	return settled && now != "" && now != f.was
}
