package bridge

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// Files of the store, in the directory that the backend saves to:
//
//	ssk-<run>.lock             held with flock while the run lives
//	ssk-<run>-<n>.bin, .json   a reference and its metadata; the id is <run>-<n>
//	ssk-<run>-<id>.tmp         metadata of any run's reference, being written by this one
//	ssk-<run>-<n>.saved        what the backend saved, until it is written anew as .bin
//	ssk-<run>-s<n>.scratch     composed states
//	ssk-<run>-r<n>.recipe      recipes, and with .reply behind it what the agent writes its replies to
//	ssk-<run>-p<n>.state       states and recipes by which the backend is tried out
//
// No other file in the directory is ever touched.
var (
	fileName = regexp.MustCompile(`^ssk-([0-9a-f]{16})(?:\.lock|-[0-9a-f]{1,12}\.(?:bin|json|saved)|-[0-9a-f]{16}-[0-9a-f]{1,12}\.tmp|-s[0-9]{1,6}\.scratch|(?:-r[0-9]{1,12}\.recipe|-p[0-9]\.state)(?:\.reply)?)$`)
	idFormat = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{1,12}$`)
)

// metaInterval is how long hits stay unwritten: a crash loses them, and other sidecars do
// not know of them yet.
const metaInterval = 30 * time.Second

// maxMetaBytes is far more than metadata take.
const maxMetaBytes = 64 << 10

func lockName(run string) string            { return "ssk-" + run + ".lock" }
func stateName(id string) string            { return "ssk-" + id + ".bin" }
func metaName(id string) string             { return "ssk-" + id + ".json" }
func recipeName(run string, n int64) string { return fmt.Sprintf("ssk-%s-r%d.recipe", run, n) }
func probeName(run string, n int) string    { return fmt.Sprintf("ssk-%s-p%d.state", run, n) }
func metaTmpName(run, id string) string     { return "ssk-" + run + "-" + id + ".tmp" }
func savedName(id string) string            { return "ssk-" + id + ".saved" }

// idOf is the id in the name of a reference's file.
func idOf(name string) string {
	return strings.TrimSuffix(strings.TrimPrefix(name, "ssk-"), filepath.Ext(name))
}

// runLock is the mark of a living run.
type runLock struct {
	id string
	f  *os.File
}

func newRun(dir string) (*runLock, error) { return newRunAs(dir, "") }

// newRunAs is newRun of an id that none that lives has, or of a new one where it is "".
func newRunAs(dir, as string) (*runLock, error) {
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
		return newRunAs(dir, as)
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

// bury takes the lock of a run that ended. It returns false where the run may live.
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

// record is a metadata file.
type record struct {
	Meta
	Earned earnings `json:"earned"`
	stamp  fileStamp
}

// writeMeta writes e's metadata in one step. The caller holds s.mu.
func (s *Store) writeMeta(e *entry) error {
	data, err := json.Marshal(record{Meta: e.meta, Earned: e.earned})
	if err != nil {
		return err
	}
	tmp := filepath.Join(s.dir, metaTmpName(s.run.id, e.meta.ID))
	stamp, err := writeStamped(tmp, data)
	if err == nil {
		err = os.Rename(tmp, s.metaPath(e.meta.ID))
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	e.own, e.noted, e.saved = gains{}, stamp, s.o.Now()
	return nil
}

// writeStamped writes a file, and returns its stamp from before it has another name: what
// is there then may be another sidecar's.
func writeStamped(path string, data []byte) (fileStamp, error) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fileStamp{}, err
	}
	return stampOf(path)
}

// updateMeta writes the metadata of a reference anew, with what others wrote meanwhile,
// unless another sidecar has removed it: what is gone must not come back. The caller holds
// s.mu.
func (s *Store) updateMeta(e *entry) {
	stamp, err := stampOf(s.metaPath(e.meta.ID))
	if err != nil {
		return
	}
	if stamp != e.noted {
		if rec, err := s.readMeta(e.meta.ID); err == nil {
			e.merge(rec, s.o.Now())
		}
	}
	_ = s.writeMeta(e)
}

// readMeta reads the metadata of id and checks them against the state file.
func (s *Store) readMeta(id string) (record, error) {
	var rec record
	f, err := os.Open(s.metaPath(id))
	if err != nil {
		return rec, err
	}
	defer f.Close()
	if rec.stamp, err = openStamp(f); err != nil {
		return rec, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMetaBytes))
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(data, &rec); err != nil {
		return rec, fmt.Errorf("%w: metadata %s: %w", ErrCorrupt, metaName(id), err)
	}
	if rec.ID != id || rec.Tokens < 0 || rec.Bytes <= 0 || rec.Hits < 0 {
		return rec, fmt.Errorf("%w: metadata %s are of %q with %d tokens, %d bytes: expected its own", ErrCorrupt, metaName(id), rec.ID, rec.Tokens, rec.Bytes)
	}
	st, err := os.Lstat(s.statePath(id))
	switch {
	case err != nil:
		return rec, err
	case !st.Mode().IsRegular() || st.Size() != rec.Bytes:
		return rec, fmt.Errorf("%w: %s has %d bytes: expected %d", ErrCorrupt, stateName(id), st.Size(), rec.Bytes)
	}
	return rec, nil
}

// recover reads the directory: it takes over what is whole and deletes what no
// living run can miss. The caller holds s.mu, and ends with unlock.
func (s *Store) recover() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	r := runs{dir: s.dir, lives: map[string]bool{s.run.id: true}}
	defer r.close()
	var rest []string
	for _, f := range files {
		m := fileName.FindStringSubmatch(f.Name())
		switch {
		case m == nil:
		case filepath.Ext(f.Name()) == ".json":
			id := idOf(f.Name())
			rec, err := s.readMeta(id)
			s.adopt(id, rec, err)
		case !r.alive(m[1]):
			rest = append(rest, f.Name())
		}
	}
	for _, name := range rest {
		if id := idOf(name); filepath.Ext(name) == ".bin" && (s.entries[id] != nil || !s.removed(id)) {
			continue
		}
		_ = os.Remove(filepath.Join(s.dir, name))
	}
	s.shrink()
	return nil
}

// adopt takes over the reference of that id, of whose metadata reading made rec or err, if
// it is whole; else it drops it, unless what others made is to be left alone. The caller
// holds s.mu, and ends with unlock.
func (s *Store) adopt(id string, rec record, err error) *entry {
	e := &entry{meta: rec.Meta, earned: rec.Earned, noted: rec.stamp, saved: s.o.Now()}
	if err == nil {
		s.entries[id] = e
		return e
	}
	if reason := s.lostBy(id, err); reason != "" && reason != DropElsewhere && !s.o.OnlyOwn {
		e.meta.ID = id
		s.detach(e, reason)
	}
	return nil
}

// removed tells whether the metadata of id are gone. A listing may miss a file that
// another sidecar renames over meanwhile.
func (s *Store) removed(id string) bool {
	_, err := os.Lstat(s.metaPath(id))
	return errors.Is(err, fs.ErrNotExist)
}

// shrink brings a store that was opened with a smaller budget, or that others
// filled, back under it. The caller holds s.mu, and ends with unlock.
func (s *Store) shrink() {
	if s.o.Budget <= 0 {
		return
	}
	over := s.used() - s.o.Budget
	for _, v := range s.victims() {
		if over <= 0 {
			return
		}
		over -= v.entry.meta.Bytes
		s.detach(v.entry, DropEvicted)
	}
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

// fileStamp tells whether a file is still what it was.
type fileStamp struct {
	size, mtime int64
	inode       uint64
}

// stampOf is that of the file itself, targetStamp of what a link leads to, openStamp of an
// open file.
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

// checksum is the xxHash64 of a whole state file.
func checksum(s *State) uint64 { return xxhash.Sum64(s.m.data) }
