package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	slotDirPrefix = "semsharekv-slots-"
	lockFile      = "serve.lock"
	// enough memory that slots are kept there rather than on a disk.
	enough = 1 << 30
	// young is how old a directory without a lock is at least before it counts as
	// left behind: its maker may be about to lock it.
	young = time.Minute
)

// SlotDir is a directory for slots that nobody else can read and that goes when
// its process does.
type SlotDir struct {
	Path string
	// Room is how many bytes may be written there, and Memory whether they lie in
	// memory.
	Room   int64
	Memory bool

	lock *os.File
}

// NewSlotDir makes a directory in memory (/dev/shm, or $XDG_RUNTIME_DIR) where
// there is room, else among the temporary files. What earlier runs that were
// killed left behind is removed.
func NewSlotDir() (*SlotDir, error) {
	return newSlotDir([]string{"/dev/shm", os.Getenv("XDG_RUNTIME_DIR"), os.TempDir()})
}

func newSlotDir(parents []string) (*SlotDir, error) {
	var best *SlotDir
	var faults []error
	for _, parent := range parents {
		if parent == "" {
			continue
		}
		clean(parent)
		d, err := look(parent)
		switch {
		case err != nil:
			faults = append(faults, err)
		case d.Memory && d.Room >= enough:
			return d, d.make(parent)
		case best == nil || d.Room > best.Room:
			best = d
		}
	}
	if best == nil {
		return nil, fmt.Errorf("no place for a slot directory: %w", errors.Join(faults...))
	}
	return best, best.make(best.Path)
}

// look finds out what a directory in parent would have. Memory that the machine
// needs for other things is no room.
func look(parent string) (*SlotDir, error) {
	if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
		return nil, fmt.Errorf("%s: %w", parent, err)
	}
	room, memory, err := Room(parent)
	if err != nil {
		return nil, err
	}
	return &SlotDir{Path: parent, Room: room, Memory: memory}, nil
}

// Room says how many bytes can be written to a directory, and whether they lie in
// memory: then half of what this process has available is the most.
func Room(dir string) (bytes int64, memory bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, false, fmt.Errorf("%s: %w", dir, err)
	}
	free := int64(st.Bavail) * int64(st.Bsize)
	if !inMemory(&st) {
		return free, false, nil
	}
	if available := availableMemory("/"); available > 0 {
		free = min(free, available/2)
	}
	return free, true, nil
}

// make makes the directory and locks it.
func (d *SlotDir) make(parent string) error {
	path, err := os.MkdirTemp(parent, slotDirPrefix) // 0700
	if err != nil {
		return fmt.Errorf("cannot make a slot directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
	}
	if err == nil {
		_, err = os.Stat(lock.Name()) // another start may have taken it for left behind
	}
	if err != nil {
		return fmt.Errorf("cannot lock the slot directory: %w", err)
	}
	d.Path, d.lock = path, lock
	return nil
}

// Private tells whether a directory is one of those, of whatever process.
func Private(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, lockFile))
	return err == nil && strings.HasPrefix(filepath.Base(dir), slotDirPrefix)
}

// Remove deletes the directory and what is in it.
func (d *SlotDir) Remove() error {
	return errors.Join(os.RemoveAll(d.Path), d.lock.Close())
}

// clean removes the directories of this user whose process is gone.
func clean(parent string) {
	left, _ := filepath.Glob(filepath.Join(parent, slotDirPrefix+"*"))
	for _, dir := range left {
		if st, err := os.Lstat(dir); err == nil && st.IsDir() && mine(st) && abandoned(dir, st.ModTime()) {
			_ = os.RemoveAll(dir)
		}
	}
}

func mine(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == os.Getuid()
}

func abandoned(dir string, made time.Time) bool {
	lock, err := os.Open(filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return time.Since(made) > young
	}
	if err != nil {
		return false
	}
	defer lock.Close()
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

func inMemory(st *unix.Statfs_t) bool {
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
