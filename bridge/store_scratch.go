package bridge

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// scratchPool keeps the files of composed states between requests: memory that
// was written once is written again several times sooner than fresh memory.
type scratchPool struct {
	s    *Store
	mu   sync.Mutex
	free []*ScratchFile
	all  []*ScratchFile
}

// ScratchFile is a file for one composed state, or for one the backend saves
// between two stages. It has one user at a time, until Release.
type ScratchFile struct {
	pool *scratchPool
	path string
	f    *os.File
	m    *mapping

	abandoned bool
}

// Scratch returns a file for a state of about that many bytes, which is the
// caller's until its Release.
func (s *Store) Scratch(bytes int64) (*ScratchFile, error) { return s.scratch.get(bytes) }

func (p *scratchPool) get(bytes int64) (*ScratchFile, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := p.closest(bytes); i >= 0; i = p.closest(bytes) {
		sf := p.free[i]
		p.free = slices.Delete(p.free, i, i+1)
		if sf.named() {
			return sf, nil
		}
		sf.discard()
	}
	path := filepath.Join(p.s.dir, scratchName(p.s.run.id, len(p.all)))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	sf := &ScratchFile{pool: p, path: path, f: f, m: &mapping{}}
	p.all = append(p.all, sf)
	return sf, nil
}

// closest is the free file whose mapping is nearest in size, or -1.
func (p *scratchPool) closest(bytes int64) int {
	best, least := -1, int64(0)
	for i, sf := range p.free {
		d := int64(len(sf.m.data)) - bytes
		if d < 0 {
			d = -d
		}
		if best < 0 || d < least {
			best, least = i, d
		}
	}
	return best
}

func (p *scratchPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, sf := range p.all {
		_ = os.Remove(sf.path)
	}
	for _, sf := range p.free { // those in use unmap at Release
		sf.unmap()
	}
	p.all, p.free = nil, nil
}

// Path is where the file lies.
func (f *ScratchFile) Path() string { return f.path }

// File is the base name that the backend is told.
func (f *ScratchFile) File() string { return filepath.Base(f.path) }

// Create is CreateState into this file. The mapping outlives the writer's Close,
// so that the next state of up to this size costs no page faults.
func (f *ScratchFile) Create(l *Layout, stream int, tokens, pos []int32) (*StateWriter, error) {
	if err := checkNew(l, stream, tokens, pos); err != nil {
		return nil, fmt.Errorf("state %s: %w", f.path, err)
	}
	if err := f.grow(l.FileBytes(len(tokens), len(pos))); err != nil {
		return nil, err
	}
	return newStateWriter(&mapping{data: f.m.data}, l, stream, tokens, pos), nil
}

// grow makes the file size bytes long and the mapping at least so. The mapping may
// be longer than the file: what lies beyond is not touched.
func (f *ScratchFile) grow(size int64) error {
	if int64(len(f.m.data)) < size {
		f.unmapData()
		m, err := mapWritable(f.f, size)
		if err != nil {
			return err
		}
		f.m = m
		return nil
	}
	return allocate(f.f, size)
}

// Abandon has Release delete the file, since the backend may still read it or write to it:
// what it does then write goes when the store next looks at the directory. It must come before Release, from
// the file's user.
func (f *ScratchFile) Abandon() { f.abandoned = true }

// Release gives the file back for the next request.
func (f *ScratchFile) Release() {
	p := f.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case f.abandoned:
		f.discard()
	case p.all == nil:
		f.unmap()
	default:
		p.free = append(p.free, f)
	}
}

// named tells whether the file's name still leads to it: the backend goes by the name.
func (f *ScratchFile) named() bool {
	own, err := f.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(f.path)
	return err == nil && os.SameFile(own, there)
}

// discard gives the file up. Its name stays taken, and what comes to lie there is deleted. The
// caller holds the pool's lock.
func (f *ScratchFile) discard() {
	f.abandoned = true
	_ = os.Remove(f.path)
	f.unmap()
}

// abandoned tells whether a file of that name was given up, so that only the backend can
// have made it anew.
func (p *scratchPool) abandoned(name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.all, func(f *ScratchFile) bool { return f.abandoned && f.File() == name })
}

func (f *ScratchFile) unmapData() {
	_ = f.m.close()
	f.m = &mapping{}
}

func (f *ScratchFile) unmap() {
	f.unmapData()
	_ = f.f.Close()
}
