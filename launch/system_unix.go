//go:build unix && !linux

package launch

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes: without Linux's parent-death signal a killed sidecar leaves its
// server behind.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func inMemory(*unix.Statfs_t) bool { return false }
