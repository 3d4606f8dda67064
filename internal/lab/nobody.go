package lab

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// AsNobody has the test's own goroutine open files without root's rights until the test
// ends: what nobody may read cannot be read then, whoever runs it.
func AsNobody(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	before, err := unix.SetfsuidRetUid(nobody)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = unix.SetfsuidRetUid(before)
		runtime.UnlockOSThread()
	})
}
