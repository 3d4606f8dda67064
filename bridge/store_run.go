package bridge

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// runLock is the mark of a living run.
type runLock struct {
	id string
	f  *os.File
}

// newRun takes the lock of a run named as, which no living run may have, or of a random
// name if as is "".
func newRun(dir, as string) (*runLock, error) {
	id := as
	if id == "" {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return nil, err
		}
		id = hex.EncodeToString(b[:])
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName(id)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	// A store that recovers at this very moment may have taken the lock, and then
	// deletes the file before it lets go (see runs).
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	if _, err := os.Stat(f.Name()); errors.Is(err, fs.ErrNotExist) {
		f.Close()
		return newRun(dir, as)
	}
	return &runLock{id: id, f: f}, nil
}

func (r *runLock) release() error {
	err := os.Remove(r.f.Name())
	return errors.Join(err, r.f.Close())
}

// runs tells which runs of a directory live. It holds the locks of those that ended until
// it is closed: one that has made its lock and is just about to take it waits meanwhile,
// and then sees that the file is gone.
type runs struct {
	dir   string
	lives map[string]bool // what is known
	held  []*os.File
}

// alive tells whether the run of that id holds its lock, or may do so.
func (r *runs) alive(run string) bool {
	lives, known := r.lives[run]
	if !known {
		lives = !r.bury(run)
		r.lives[run] = lives
	}
	return lives
}

// bury takes the lock of a run that has ended. It returns false if the run may be alive.
func (r *runs) bury(run string) bool {
	f, err := os.Open(filepath.Join(r.dir, lockName(run)))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
		f.Close()
		return false
	}
	r.held = append(r.held, f)
	return true
}

func (r *runs) close() {
	for _, f := range r.held {
		f.Close()
	}
}
