package launch

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes put the server into a process group of its own, so that a terminal's
// Ctrl-C does not end it before the sidecar has drained, and have it killed where
// the sidecar dies without a chance to end it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func inMemory(st *unix.Statfs_t) bool {
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
