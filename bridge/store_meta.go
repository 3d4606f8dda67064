package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// maxMetaBytes is far more than metadata take.
const maxMetaBytes = 64 << 10

// record is a metadata file.
type record struct {
	Meta
	Earned earnings `json:"earned"`
	stamp  fileStamp
}

// limit brings times that are yet to come, of a clock that was ahead, down to now: what was
// earned then would not fade until they came.
func (r *record) limit(now time.Time) {
	for _, t := range []*time.Time{&r.Created, &r.Used, &r.Earned.At} {
		if t.After(now) {
			*t = now
		}
	}
}

// writeMeta writes e's metadata. Meanwhile e may be used, and may be merged with what another
// sidecar wrote: then the next look at the directory merges it with this. The caller holds
// s.files.
func (s *Store) writeMeta(e *entry) error {
	s.mu.Lock()
	data, err := json.Marshal(record{Meta: e.meta, Earned: e.earned})
	own, was := e.own, e.noted
	e.own = gains{}
	s.mu.Unlock()
	var stamp fileStamp
	if err == nil {
		stamp, err = s.replaceMeta(e.meta.ID, data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	if err != nil {
		e.own, e.noted = e.own.plus(own, now), fileStamp{} // it is read anew
		return err
	}
	if e.noted == was {
		e.noted = stamp
	}
	e.saved = now
	return nil
}

// replaceMeta puts data in the place of id's metadata in one step.
func (s *Store) replaceMeta(id string, data []byte) (fileStamp, error) {
	tmp := filepath.Join(s.dir, metaTmpName(s.run.id, id))
	stamp, err := writeStamped(tmp, data)
	if err == nil {
		err = os.Rename(tmp, s.metaPath(id))
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return stamp, err
}

// writeStamped writes a file and returns its stamp. It is taken before the caller renames the
// file: under the new name another sidecar's file may stand by then.
func writeStamped(path string, data []byte) (fileStamp, error) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fileStamp{}, err
	}
	return stampOf(path)
}

// updateMeta writes the metadata of a reference, merged with the changes of other sidecars.
// If the reference was removed, by whichever sidecar, nothing is written: it must not come
// back. One that this store is about to remove may be written: it deletes the metadata later.
// The caller holds s.files.
func (s *Store) updateMeta(e *entry) {
	stamp, err := stampOf(s.metaPath(e.meta.ID))
	if err != nil {
		return
	}
	s.mu.Lock()
	known := stamp == e.noted
	s.mu.Unlock()
	if !known {
		s.mergeMeta(e)
	}
	_ = s.writeMeta(e)
}

func (s *Store) mergeMeta(e *entry) {
	rec, err := s.readMeta(e.meta.ID)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.merge(rec, s.o.Now())
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
	rec.limit(s.o.Now())
	st, err := os.Lstat(s.statePath(id))
	switch {
	case err != nil:
		return rec, err
	case !st.Mode().IsRegular() || st.Size() != rec.Bytes:
		return rec, fmt.Errorf("%w: %s has %d bytes: expected %d", ErrCorrupt, stateName(id), st.Size(), rec.Bytes)
	}
	return rec, nil
}
