package bridge

import (
	"os"
	"path/filepath"
	"time"
)

// metaInterval is how long hits stay unwritten: a crash loses them, and other sidecars do
// not know of them yet.
const metaInterval = 30 * time.Second

// freshFor is how old what is known of the directory may be when room is made in it: reading it
// takes a look at the file of every reference.
const freshFor = time.Second

// Refresh takes note of what other sidecars put into the directory, took out of it and
// wrote about what is there, so that the budget holds for all of them together and each
// knows what all make use of. It writes what this one's references saved, and deletes what
// the backend saved too late. Directory and files are read without s.mu, but for a look at
// whether a file is still there: look-ups do not wait for the disk.
func (s *Store) Refresh() {
	s.look()
	s.writeDue()
}

func (s *Store) look() {
	if l, err := s.list(); err == nil {
		s.note(l, s.readNews(l))
	}
}

// lookForRoom takes note of the directory before room is made, unless that was done a moment
// ago. A slot waits meanwhile, so nothing is written.
func (s *Store) lookForRoom() {
	s.mu.Lock()
	age := s.o.Now().Sub(s.looked)
	s.mu.Unlock()
	if age < 0 || age >= freshFor {
		s.look()
	}
}

// listing is which files of any run the directory held a moment ago.
type listing struct {
	at       time.Time
	metadata map[string]fileStamp // by the reference's id
	others   []string             // the other files' names
}

func (s *Store) list() (listing, error) {
	l := listing{at: s.o.Now(), metadata: map[string]fileStamp{}}
	files, err := os.ReadDir(s.dir)
	for _, f := range files {
		name := f.Name()
		switch {
		case !fileName.MatchString(name):
		case filepath.Ext(name) != ".json":
			l.others = append(l.others, name)
		default:
			if stamp, err := stampOf(filepath.Join(s.dir, name)); err == nil {
				l.metadata[idOf(name)] = stamp
			}
		}
	}
	return l, err
}

// news is the result of reading one metadata file without the lock. was is the stamp the
// store had then; if it has another now, something newer was read or written and this result
// is dropped.
type news struct {
	id  string
	was fileStamp
	rec record
	err error
}

// readNews reads the metadata that the store does not know as the listing has them.
func (s *Store) readNews(l listing) []news {
	all := s.unread(l)
	for i := range all {
		n := &all[i]
		n.rec, n.err = s.readMeta(n.id)
	}
	return all
}

func (s *Store) unread(l listing) []news {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []news
	for id, stamp := range l.metadata {
		if was := s.noted(id); was != stamp {
			all = append(all, news{id: id, was: was})
		}
	}
	return all
}

// noted returns the stamp of id's metadata file when this store last read or wrote it, or
// zero. The caller holds s.mu.
func (s *Store) noted(id string) fileStamp {
	if e := s.entries[id]; e != nil {
		return e.noted
	}
	return fileStamp{}
}

// note brings the store up to a listing and the news about it. Both may be older than what
// the store did since.
func (s *Store) note(l listing, all []news) {
	for _, name := range s.update(l, all) {
		_ = os.Remove(filepath.Join(s.dir, name))
	}
}

// update does what note does but for deleting the files that it returns: they were saved too
// late.
func (s *Store) update(l listing, all []news) (late []string) {
	s.mu.Lock()
	defer s.unlock()
	if s.closed {
		return nil
	}
	s.looked = l.at
	for _, n := range all {
		s.take(n)
	}
	for _, name := range l.others {
		if s.late(name) {
			late = append(late, name)
		}
	}
	for id, e := range s.entries {
		if _, there := l.metadata[id]; !there && e.pins == 0 && s.removed(id) {
			s.detach(e, DropElsewhere)
		}
	}
	return late
}

// take brings one reference up to its news, unless the store is about to make or delete the
// reference. If the store knows it already, damaged metadata change nothing. The caller holds
// s.mu, and ends with unlock.
func (s *Store) take(n news) {
	_, pending := s.reserved[n.id]
	switch e := s.entries[n.id]; {
	case s.closed, pending, s.leaving[n.id], s.noted(n.id) != n.was:
	case e == nil && n.err == nil && s.removed(n.id): // since it was read
	case e == nil:
		s.adopt(n.id, n.rec, n.err)
	case n.err == nil:
		e.merge(n.rec, s.o.Now())
	}
}

// late reports whether the backend saved this file after its reservation had ended or its
// user had abandoned it: the backend then creates a file anew that was deleted. The caller
// holds s.mu.
func (s *Store) late(name string) bool {
	switch filepath.Ext(name) {
	case ".bin", ".saved":
		id := idOf(name)
		_, reserved := s.reserved[id]
		return s.made(id) && !reserved && !s.leaving[id] && s.entries[id] == nil
	case ".scratch":
		return s.scratch.abandoned(name)
	}
	return false
}

// writeDue writes what was not written for metaInterval, one reference at a time, so that
// others that write come through.
func (s *Store) writeDue() {
	for _, e := range s.unwritten(metaInterval) {
		s.files.Lock()
		if !s.closed {
			s.updateMeta(e)
		}
		s.files.Unlock()
	}
}

// unwritten returns the references with gains whose metadata were written at least so long
// ago.
func (s *Store) unwritten(age time.Duration) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*entry
	for _, e := range s.entries {
		if e.own.hits > 0 && s.o.Now().Sub(e.saved) >= age {
			all = append(all, e)
		}
	}
	return all
}
