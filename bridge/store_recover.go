package bridge

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
)

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
	_ = s.makeRoom(0, math.MaxInt) // it was opened with a smaller budget, or others filled it
	return nil
}

// adopt adds the reference id, given the result of reading its metadata. If they are damaged
// (err) the reference is dropped instead, unless other runs' references are to be left alone.
// The caller holds s.mu, and ends with unlock.
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

// removed reports whether the metadata file of id is gone. A listing alone does not show
// this: it may miss a file over which another sidecar renames a new one.
func (s *Store) removed(id string) bool {
	_, err := os.Lstat(s.metaPath(id))
	return errors.Is(err, fs.ErrNotExist)
}
