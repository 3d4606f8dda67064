package bridge

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotAdmitted is wrapped where a reference is not worth what would have to go
// for it, or cannot fit.
var ErrNotAdmitted = errors.New("reference not admitted")

// ErrNoReference is wrapped where the store holds no reference of that name.
var ErrNoReference = errors.New("no such reference")

// StoreOptions say how much the store keeps, and for whom.
type StoreOptions struct {
	// Budget is how many bytes all references in the directory may take, those of
	// other sidecars too; 0 means no limit. Scratch files and states that are being
	// written anew come on top: a few states of one context each.
	Budget int64
	// Model is the key of the model whose references are used. Those of other models are
	// never returned, and kept as long as there is room or other sidecars use them.
	Model string
	// OnlyOwn leaves alone what other runs made: it counts against the budget, but is neither
	// returned nor evicted.
	OnlyOwn bool
	// Check, where given, refuses states on top of the codec's own checks (say,
	// those of another layout).
	Check func(*State) error
	// Stored, where given, is the layout in which references are kept: what the
	// backend saved is written anew in it, with up to Threads threads of Kernels.
	Stored  *Layout
	Kernels *Kernels
	Threads int
	// OnDrop, where given, is called, outside of any lock, with each reference that leaves the
	// store for good, and why (DropReasons); by OpenStore too. Of damaged metadata no more may
	// be known than the ID.
	OnDrop func(m Meta, reason string)
	// Now tells the time; nil means time.Now.
	Now func() time.Time
}

// Meta is what is known about a reference. It holds nothing of its text.
type Meta struct {
	ID string `json:"id"`
	// Tenant and Model are digests: what is shared is shared within both.
	Tenant string `json:"tenant"`
	Model  string `json:"model"`
	Tokens int    `json:"tokens"`
	Bytes  int64  `json:"bytes"`
	// Generation is 0 where the backend computed every token, and one more than
	// its references' where it was composed.
	Generation  int       `json:"generation"`
	Checksum    uint64    `json:"checksum"`
	Created     time.Time `json:"created"`
	Used        time.Time `json:"used"`
	Hits        int64     `json:"hits"`
	SavedTokens int64     `json:"saved_tokens"`
}

// StoreStats count what the store holds: usable references, and the bytes of all.
type StoreStats struct {
	References int
	Bytes      int64
}

// Store keeps reference states as files in the directory that the backend saves
// to. A reference is the state file <id>.bin and its metadata <id>.json; it exists
// exactly as long as the latter does, which appears and disappears in one step.
// Names start with the run that made them, and each run holds a lock, so that
// several sidecars may share a directory and what a killed one left behind is
// known. A Store is safe for concurrent use.
type Store struct {
	recipes atomic.Int64 // how many were given a path
	dir     string
	o       StoreOptions
	run     *runLock

	// files is held while metadata are written or deleted, and taken before mu. What holds mu
	// neither writes nor deletes files: look-ups wait for it, and a disk may stall.
	files sync.Mutex

	mu       sync.Mutex
	entries  map[string]*entry
	reserved map[string]int64 // bytes of pending references
	scratch  scratchPool
	idle     idleStates
	looked   time.Time // when the directory was last read
	next     int
	detached []*entry        // yet to be discarded, by unlock
	leaving  map[string]bool // detached, and perhaps not deleted yet
	closed   bool            // changed under files too, so that either will do to read it
}

// entry is one reference. Its fields are guarded by Store.mu, except that load
// serialises opening and checking.
type entry struct {
	meta   Meta
	earned earnings
	own    gains     // of both, what is not written yet
	noted  fileStamp // the metadata file, as it was last read or written
	saved  time.Time // when it was last written, by this store

	load    sync.Mutex
	state   *State
	old     []*State // replaced while in use
	tokens  []int32
	checked fileStamp
	failing time.Time // since when it cannot be read
	failed  time.Time // when it last could not, zero where it can
	pins    int
	idle    *list.Element // in Store.idle, where it is mapped and not pinned
	why     string        // it is gone, "" where it is not
}

// OpenStore opens the store in dir, which is made with mode 0700 where it does not
// exist, and recovers it: what was not committed, does not have the size it should
// have, or is scratch of a run that ended, is deleted.
func OpenStore(dir string, o StoreOptions) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := MakePrivate(dir); err != nil {
		return nil, fmt.Errorf("slot directory: %w", err)
	}
	run, err := newRun(dir, "")
	if err != nil {
		return nil, fmt.Errorf("slot directory %s: %w", dir, err)
	}
	s := &Store{
		dir: dir, o: o, run: run,
		entries: map[string]*entry{}, reserved: map[string]int64{}, leaving: map[string]bool{},
		idle: idleStates{most: maxIdle},
	}
	s.scratch.s = s
	s.mu.Lock()
	err = s.recover()
	s.unlock()
	if err != nil {
		run.release()
		return nil, fmt.Errorf("recovering %s: %w", dir, err)
	}
	return s, nil
}

// All returns the usable references, most recently used first.
func (s *Store) All() []Meta {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Meta, 0, len(s.entries))
	for _, e := range s.entries {
		if !s.foreign(e) {
			all = append(all, e.meta)
		}
	}
	slices.SortFunc(all, func(a, b Meta) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// Stats returns the counts of now.
func (s *Store) Stats() StoreStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var st StoreStats
	for _, e := range s.entries {
		st.Bytes += e.meta.Bytes
		if !s.foreign(e) {
			st.References++
		}
	}
	return st
}

// foreign references are never returned.
func (s *Store) foreign(e *entry) bool {
	return e.meta.Model != s.o.Model || s.leaves(e.meta.ID)
}

// leaves tells whether the reference of that id is another run's, and left alone.
func (s *Store) leaves(id string) bool { return s.o.OnlyOwn && !s.made(id) }

// made tells whether this run made the reference of that id.
func (s *Store) made(id string) bool { return strings.HasPrefix(id, s.run.id+"-") }

// Hit notes that a reference saved the backend that many tokens. Refresh writes it.
func (s *Store) Hit(id string, savedTokens int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		return
	}
	now := s.o.Now()
	hit := gains{1, int64(savedTokens), earnings{Hits: 1, Tokens: float64(savedTokens), At: now}}
	e.meta.Used = now
	e.meta.Hits += hit.hits
	e.meta.SavedTokens += hit.tokens
	e.earned = e.earned.plus(hit.earned, now)
	e.own = e.own.plus(hit, now)
}

// Close writes what is not written yet, and removes this run's scratch. References
// stay for the next run; no State of the store may be used any more.
func (s *Store) Close() error {
	s.files.Lock()
	defer s.files.Unlock()
	if s.closed {
		return nil
	}
	for _, e := range s.unwritten(0) {
		s.updateMeta(e)
	}
	for _, id := range s.end() {
		_ = os.Remove(s.statePath(id))
		_ = os.Remove(s.savedPath(id))
	}
	s.scratch.close()
	return s.run.release()
}

// end has the store give out and take in nothing more, and returns the ids of pending
// references. The caller holds s.files.
func (s *Store) end() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, e := range s.entries {
		s.unmapIfUnused(e, true).close()
	}
	return slices.Collect(maps.Keys(s.reserved))
}

// freeSpace is how many bytes the directory's filesystem has left for us.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}
