package bridge

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// Why references leave the store.
const (
	DropEvicted     = "evicted"            // for the budget
	DropElsewhere   = "removed by another" // its files went, by a sidecar that shares the directory
	DropCorrupt     = "corrupt"
	DropUnsupported = "unsupported"
	DropMissing     = "missing" // the state file alone is gone
	DropUnreadable  = "unreadable"
	DropOtherTokens = "other tokens" // what the backend saved is another prompt
	DropForgotten   = "forgotten"    // on purpose
)

// DropReasons are all of them.
var DropReasons = []string{DropEvicted, DropElsewhere, DropCorrupt, DropUnsupported, DropMissing, DropUnreadable, DropOtherTokens, DropForgotten}

// unreadableFor is how long a reference may be unreadable for reasons that can pass, such
// as too many open files. Longer, it would keep another from taking its place. Failures further
// than failureGap apart are of different times.
const (
	unreadableFor = 10 * time.Minute
	failureGap    = time.Minute
)

// Drop removes a reference because of reason.
func (s *Store) Drop(id, reason string) {
	s.mu.Lock()
	defer s.unlock()
	if e := s.entries[id]; e != nil {
		s.detach(e, reason)
	}
}

// dropLost drops a reference whose reading failed with err. If the failure may pass, the
// reference stays for a while (unreadableFor).
func (s *Store) dropLost(id string, err error) {
	reason := s.lostBy(id, err)
	if reason == "" && s.failingFor(id) > unreadableFor {
		reason = DropUnreadable
	}
	if reason != "" {
		s.Drop(id, reason)
	}
}

// lostBy returns the reason for dropping the reference id after reading it failed with err,
// or "" if the failure may pass.
func (s *Store) lostBy(id string, err error) string {
	switch {
	case s.removed(id):
		return DropElsewhere
	case errors.Is(err, ErrCorrupt):
		return DropCorrupt
	case errors.Is(err, ErrUnsupported):
		return DropUnsupported
	case errors.Is(err, fs.ErrNotExist):
		return DropMissing
	}
	return ""
}

// failingFor returns the time for which the reference id has been unreadable, up to now.
func (s *Store) failingFor(id string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, now := s.entries[id], s.o.Now()
	if e == nil {
		return 0
	}
	if now.Sub(e.failed) > failureGap {
		e.failing = now
	}
	e.failed = now
	return now.Sub(e.failing)
}

// detach takes e out of the store because of reason, which is not "": it is not found any
// more, even while its files are still there. The caller holds s.mu, and ends with unlock.
func (s *Store) detach(e *entry, reason string) {
	e.why = reason
	delete(s.entries, e.meta.ID)
	s.leaving[e.meta.ID] = true
	s.detached = append(s.detached, e)
}

// unlock releases s.mu and discards what was detached.
func (s *Store) unlock() {
	gone := s.detached
	s.detached = nil
	s.mu.Unlock()
	for _, e := range gone {
		s.discard(e)
	}
}

// discard deletes the files of a detached entry and tells who wants to know. The metadata go
// first: from then on the reference does not exist, whatever happens. Memory in use stays
// mapped until its last user releases it.
func (s *Store) discard(e *entry) {
	id := e.meta.ID
	s.files.Lock()
	_ = os.Remove(s.metaPath(id))
	s.files.Unlock()
	_ = os.Remove(s.statePath(id))
	s.mu.Lock()
	delete(s.leaving, id)
	unused := s.unmapIfUnused(e, true)
	s.mu.Unlock()
	unused.close()
	if s.o.OnDrop != nil {
		s.o.OnDrop(e.meta, e.why)
	}
}
