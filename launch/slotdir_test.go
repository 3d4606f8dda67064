package launch

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestSlotDirIsPrivateAndGoes(t *testing.T) {
	parent := t.TempDir()
	d, err := newSlotDir([]string{"", "/nowhere", parent})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(d.Path) != parent || st.Mode().Perm() != 0o700 || d.Room <= 0 {
		t.Errorf("%s with mode %v and room for %d bytes, want a private one in %s", d.Path, st.Mode(), d.Room, parent)
	}
	if err := d.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(d.Path); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
	if _, err := newSlotDir([]string{"/nowhere"}); err == nil {
		t.Error("no place is no error")
	}
}

func TestSlotDirIsInMemoryWhereThereIsSome(t *testing.T) {
	const shm = "/dev/shm"
	room, memory, err := Room(shm)
	if err != nil || !memory || room < enough {
		t.Skipf("SKIPPED: %s has %d bytes, in memory: %v, %v", shm, room, memory, err)
	}
	d, err := newSlotDir([]string{t.TempDir(), shm})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Remove()
	if filepath.Dir(d.Path) != shm || !d.Memory {
		t.Errorf("%s was chosen", d.Path)
	}
}

func TestSlotDirRemovesWhatAKilledRunLeft(t *testing.T) {
	parent := t.TempDir()
	living, err := newSlotDir([]string{parent})
	if err != nil {
		t.Fatal(err)
	}
	defer living.Remove()
	killed, err := newSlotDir([]string{parent})
	if err != nil {
		t.Fatal(err)
	}
	_ = killed.lock.Close() // as the kernel does for a killed process
	starting := filepath.Join(parent, slotDirPrefix+"starting")
	halfway := filepath.Join(parent, slotDirPrefix+"halfway")
	for _, dir := range []string{starting, halfway} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-time.Hour)
	if err := os.Chtimes(halfway, long, long); err != nil {
		t.Fatal(err)
	}
	next, err := newSlotDir([]string{parent})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Remove()
	for dir, stays := range map[string]bool{living.Path: true, next.Path: true, starting: true, killed.Path: false, halfway: false} {
		if _, err := os.Stat(dir); (err == nil) != stays {
			t.Errorf("%s: %v, stays: %v", dir, err, stays)
		}
	}
}
