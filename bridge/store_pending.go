package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

var errClosed = fmt.Errorf("%w: the store is closed", ErrNotAdmitted)

// Pending is room for a reference that the backend is about to save. Exactly one
// of Commit and Abort ends it; an Abort after either does nothing.
type Pending struct {
	s         *Store
	meta      Meta
	frequency int
	once      sync.Once
}

// Reserve makes room, before the backend saves, for a state that will be kept in that
// many bytes. Where the budget is full, less valued references go, but only for a prompt
// seen (frequency, itself included) at least as often as theirs, so that a flood of novel
// prompts leaves in place what is used. Tenant and Generation are taken from m, the rest is
// the store's. Errors wrap ErrNotAdmitted, or are the operating system's.
func (s *Store) Reserve(bytes int64, m Meta, frequency int) (*Pending, error) {
	m.Bytes = bytes
	p := &Pending{s: s, meta: m, frequency: frequency}
	if err := p.reserve(); err != nil {
		return nil, err
	}
	if err := p.makeFile(); err != nil {
		p.Abort()
		return nil, err
	}
	return p, nil
}

// reserve makes room, and gives the reference its name.
func (p *Pending) reserve() error {
	s := p.s
	s.lookForRoom()
	s.mu.Lock()
	defer s.unlock()
	if err := s.makeRoom(p.meta.Bytes, p.frequency); err != nil {
		return err
	}
	s.next++
	p.meta.ID = s.run.id + "-" + strconv.FormatInt(int64(s.next), 16)
	p.meta.Model = s.o.Model
	s.reserved[p.meta.ID] = p.meta.Bytes
	return nil
}

// makeFile makes the file that the backend will write to, closed to others from
// the start, after a look at whether it will fit.
func (p *Pending) makeFile() error {
	free, err := freeSpace(p.s.dir)
	if err != nil {
		return err
	}
	need := p.meta.Bytes
	if p.s.o.Stored != nil {
		need *= 3 // beside it what the backend saves, in f16 about twice as much
	}
	if free < need {
		return fmt.Errorf("%w: %s has %d bytes left: expected %d", ErrNotAdmitted, p.s.dir, free, need)
	}
	f, err := os.OpenFile(p.Path(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// File is the base name that the backend is told to save to.
func (p *Pending) File() string { return filepath.Base(p.Path()) }

// Path is where that file lies.
func (p *Pending) Path() string {
	if p.s.o.Stored != nil {
		return p.s.savedPath(p.meta.ID)
	}
	return p.s.statePath(p.meta.ID)
}

// Commit validates what the backend saved and makes it a reference, pinned like
// one from Get. On any error the file is gone.
func (p *Pending) Commit() (*Reference, error) {
	ref, err := p.commit()
	if err != nil {
		p.Abort()
		return nil, fmt.Errorf("reference %s: %w", p.meta.ID, err)
	}
	p.once.Do(func() {}) // a later Abort does nothing
	return ref, nil
}

func (p *Pending) commit() (*Reference, error) {
	s := p.s
	if err := os.Chmod(p.Path(), 0o600); err != nil {
		return nil, err
	}
	stamp, state, err := p.open()
	if err != nil {
		return nil, err
	}
	m := p.meta
	m.Tokens, m.Bytes, m.Checksum = len(state.Tokens), state.Size, state.checksum()
	m.Created = s.o.Now()
	m.Used, m.Hits, m.SavedTokens = m.Created, 0, 0
	e := &entry{meta: m, state: state, tokens: state.Tokens, checked: stamp, pins: 1}
	if err := s.enter(e, p.frequency); err != nil {
		_ = state.Close()
		return nil, err
	}
	return &Reference{Meta: m, State: state, s: s, e: e}, nil
}

// open maps the state as it is to be kept: what the backend saved, or that written
// anew.
func (p *Pending) open() (fileStamp, *State, error) {
	state, err := p.checked()
	if err != nil {
		return fileStamp{}, nil, err
	}
	if o := &p.s.o; o.Stored != nil {
		err := rewriteState(state, p.s.statePath(p.meta.ID), o.Stored, o.Kernels, o.Threads)
		_ = state.Close()
		_ = os.Remove(p.Path())
		if err != nil {
			return fileStamp{}, nil, err
		}
		if state, err = OpenState(p.s.statePath(p.meta.ID)); err != nil {
			return fileStamp{}, nil, err
		}
	}
	stamp, err := stampOf(state.Path)
	if err != nil {
		_ = state.Close()
		return fileStamp{}, nil, err
	}
	return stamp, state, nil
}

// checked is what the backend saved, validated. Errors wrap ErrChanged where Check refuses
// it: the backend saves otherwise than it did.
func (p *Pending) checked() (*State, error) {
	state, err := OpenState(p.Path())
	if err != nil || p.s.o.Check == nil {
		return state, err
	}
	if err := p.s.o.Check(state); err != nil {
		_ = state.Close()
		return nil, fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return state, nil
}

// enter makes e a reference in place of its reservation.
func (s *Store) enter(e *entry, frequency int) error {
	s.lookForRoom()
	if err := s.resize(e.meta, frequency); err != nil {
		return err
	}
	s.files.Lock()
	defer s.files.Unlock()
	if s.closed {
		return errClosed
	}
	if err := s.writeMeta(e); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reserved, e.meta.ID)
	s.entries[e.meta.ID] = e
	return nil
}

// resize makes a reservation as large as the state became, which may be more than was reserved:
// then room is made for the difference.
func (s *Store) resize(m Meta, frequency int) error {
	s.mu.Lock()
	defer s.unlock()
	held := s.reserved[m.ID]
	delete(s.reserved, m.ID)
	err := s.makeRoom(m.Bytes, frequency)
	if err == nil {
		held = m.Bytes
	}
	s.reserved[m.ID] = held
	return err
}

// Abort deletes what was saved and gives the room back.
func (p *Pending) Abort() {
	p.once.Do(func() {
		_ = os.Remove(p.Path())
		_ = os.Remove(p.s.statePath(p.meta.ID))
		p.s.mu.Lock()
		defer p.s.mu.Unlock()
		delete(p.s.reserved, p.meta.ID)
	})
}
