package bridge

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxMetaBytes is far more than metadata take.
const maxMetaBytes = 64 << 10

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

// writeStamped writes a file and returns its stamp. It is taken before the caller renames the
// file: under the new name another sidecar's file may stand by then.
func writeStamped(path string, data []byte) (fileStamp, error) {
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fileStamp{}, err
	}
	return stampOf(path)
}

// updateMeta writes the metadata of a reference, merged with the changes of other sidecars.
// If another sidecar has removed the reference, nothing is written: it must not come back.
// The caller holds s.mu.
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
