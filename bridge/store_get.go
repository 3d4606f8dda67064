package bridge

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Reference is a reference in use: its State stays mapped until Release.
type Reference struct {
	Meta
	State *State

	s        *Store
	e        *entry
	released atomic.Bool
}

// Release ends the use. A second one does nothing.
func (r *Reference) Release() {
	if r == nil || r.s == nil || r.released.Swap(true) {
		return
	}
	r.s.mu.Lock()
	unused := r.s.unpin(r.e)
	r.s.mu.Unlock()
	unused.close()
}

// Get returns the reference of that id, pinned until its Release. Its checksum is
// verified when it is mapped: on the first use, whenever the file's size, time or inode
// changed, and after many others were used.
// A reference that another sidecar made in the same directory is found too. What is
// damaged, or refused by Check, is dropped, and the error wraps ErrCorrupt or
// ErrUnsupported; what is not there, or is another model's, gives ErrNoReference. The
// operating system's errors leave the reference for some minutes, unless they say that its
// file is gone.
func (s *Store) Get(id string) (*Reference, error) {
	e, err := s.use(id)
	if err != nil {
		return nil, err
	}
	ref := &Reference{s: s, e: e}
	if err := s.open(e); err != nil {
		ref.Release()
		s.dropLost(id, err)
		return nil, fmt.Errorf("reference %s: %w", id, err)
	}
	s.mu.Lock()
	ref.Meta, ref.State, e.failed = e.meta, e.state, time.Time{}
	s.mu.Unlock()
	return ref, nil
}

// use finds id, on the disk if need be, and pins it.
func (s *Store) use(id string) (*entry, error) {
	s.mu.Lock()
	defer s.unlock()
	e := s.lookUp(id)
	if s.closed {
		return nil, fmt.Errorf("%w: the store is closed", ErrNoReference)
	}
	if e == nil {
		return nil, fmt.Errorf("%w: %q", ErrNoReference, id)
	}
	if s.foreign(e) {
		return nil, fmt.Errorf("%w: %s is of another model or, where only its own are used, another run", ErrNoReference, id)
	}
	s.pin(e)
	return e, nil
}

// lookUp finds the entry of id, on the disk if need be. Ids come from the index,
// so that they are checked before they become part of a path. The caller holds s.mu, which is
// released for as long as the disk is read, and ends with unlock.
func (s *Store) lookUp(id string) *entry {
	if e := s.entries[id]; e != nil || !idFormat.MatchString(id) {
		return e
	}
	s.mu.Unlock()
	rec, err := s.readMeta(id)
	s.mu.Lock()
	s.take(news{id: id, rec: rec, err: err})
	return s.entries[id]
}

// open maps and verifies e's state, unless that is done and the file is unchanged.
func (s *Store) open(e *entry) error {
	e.load.Lock()
	defer e.load.Unlock()
	path := s.statePath(e.meta.ID)
	stamp, err := stampOf(path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	known := e.state != nil && e.checked == stamp
	want := e.meta
	s.mu.Unlock()
	if known {
		return nil
	}
	state, err := s.verified(path, want)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if e.state != nil {
		e.old = append(e.old, e.state)
	}
	e.state, e.tokens, e.checked = state, state.Tokens, stamp
	s.mu.Unlock()
	return nil
}

func (s *Store) verified(path string, want Meta) (*State, error) {
	state, err := OpenState(path)
	if err != nil {
		return nil, err
	}
	if err := s.verify(state, want); err != nil {
		_ = state.Close()
		return nil, err
	}
	return state, nil
}

// verify compares a state with its metadata. Errors wrap ErrCorrupt, or ErrUnsupported
// where Check refuses it.
func (s *Store) verify(state *State, want Meta) error {
	if state.Size != want.Bytes || len(state.Tokens) != want.Tokens {
		return fmt.Errorf("%w: %d bytes and %d tokens: expected %d and %d", ErrCorrupt, state.Size, len(state.Tokens), want.Bytes, want.Tokens)
	}
	if sum := state.checksum(); sum != want.Checksum {
		return fmt.Errorf("%w: checksum %016x: expected %016x", ErrCorrupt, sum, want.Checksum)
	}
	if s.o.Check == nil {
		return nil
	}
	if err := s.o.Check(state); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return nil
}

// Prompt is what is known of a reference before its state is opened.
type Prompt struct {
	Tenant string
	Tokens []int32   // not to be changed
	Used   time.Time // last
}

// Prompt returns a reference's tokens, whose they are and when they were used last. It
// reads no more of the file than the tokens, and that only once.
func (s *Store) Prompt(id string) (Prompt, error) {
	s.mu.Lock()
	e := s.lookUp(id)
	if e == nil || s.foreign(e) {
		s.unlock()
		return Prompt{}, fmt.Errorf("%w: %q", ErrNoReference, id)
	}
	p, want := Prompt{e.meta.Tenant, e.tokens, e.meta.Used}, e.meta.Tokens
	s.unlock()
	if p.Tokens != nil {
		return p, nil
	}
	tokens, err := readTokens(s.statePath(id))
	if err == nil && len(tokens) != want {
		err = fmt.Errorf("%w: %d tokens: expected %d", ErrCorrupt, len(tokens), want)
	}
	if err != nil {
		s.dropLost(id, err)
		return Prompt{}, fmt.Errorf("reference %s: %w", id, err)
	}
	s.mu.Lock()
	e.tokens, p.Tokens, e.failed = tokens, tokens, time.Time{}
	s.mu.Unlock()
	return p, nil
}

// readTokens reads the tokens of a state file and nothing behind them.
func readTokens(path string) ([]int32, error) {
	m, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	defer m.close()
	var s State
	if err := s.parseTokens(&reader{data: m.data}); err != nil {
		return nil, err
	}
	return s.Tokens, nil
}
