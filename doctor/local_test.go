package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/launch"
)

// What references take already is room for references.
func TestRoomCountsWhatReferencesTake(t *testing.T) {
	dir := t.TempDir()
	free, _, err := launch.Room(dir)
	if err != nil {
		t.Fatal(err)
	}
	const taken = 1 << 40
	level := func() Level {
		x := &examination{cfg: configs.Default()}
		x.cfg.Store.Budget = free + taken/2
		x.room(dir)
		return x.found[len(x.found)-1].Level
	}
	if got := level(); got != Warning {
		t.Errorf("%s with a budget above the room, want a warning", got)
	}
	for _, name := range []string{"ssk-0123456789abcdef-1.bin", "other.bin"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(taken); err != nil { // sparse
			t.Skipf("SKIPPED: %v", err)
		}
	}
	if got := level(); got != OK {
		t.Errorf("%s with half of the budget filled, want ok", got)
	}
}

func TestTheSecretOfAnotherUser(t *testing.T) {
	x := &examination{cfg: configs.Default()}
	x.cfg.Backend.SlotDir = t.TempDir()
	if err := os.WriteFile(x.cfg.Backend.SlotDir+"/semsharekv.key", make([]byte, 16), 0o000); err != nil {
		t.Fatal(err)
	}
	lab.AsNobody(t)
	if x.secret(); x.found[0].Level != Wrong || !strings.HasPrefix(x.found[0].Advice, "run as the user") {
		t.Errorf("found %+v", x.found)
	}
}

func TestTheSlotDirectoryOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root gives directories to another user")
	}
	shm := t.TempDir()
	x := &examination{cfg: configs.Default()}
	x.cfg.Backend.SlotDir = filepath.Join(shm, "slots")
	if err := errors.Join(os.Chmod(shm, os.ModeSticky|0o777), os.Mkdir(x.cfg.Backend.SlotDir, 0o777), os.Chown(x.cfg.Backend.SlotDir, 1234, 1234)); err != nil {
		t.Fatal(err)
	}
	if there := x.slotDir(); there || x.found[0].Level != Wrong || !strings.Contains(x.found[0].Found, "belongs to user 1234") {
		t.Errorf("found %+v", x.found)
	}
}

// The URL is valid, but the sidecar cannot open the index by it.
func TestTheFilesOfARedisURL(t *testing.T) {
	x := &examination{cfg: configs.Default()}
	x.cfg.Index.Redis = "rediss://localhost?ca_file=/nowhere.pem"
	if x.index(); x.found[0].Level != Wrong || !strings.HasPrefix(x.found[0].Found, "the sidecar does not start: ") {
		t.Errorf("found %+v", x.found)
	}
}

func TestARedisThatTakesNoWrites(t *testing.T) {
	x := &examination{ctx: t.Context(), cfg: configs.Default()}
	x.cfg.Index.Redis = lab.StartRedis(t, "--maxmemory", "1").URL
	x.index()
	if len(x.found) != 1 || x.found[0].Level != Wrong || !strings.Contains(x.found[0].Found, "OOM") {
		t.Errorf("found %+v, want that Redis has no memory", x.found)
	}
}
