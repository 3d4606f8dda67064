package doctor

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
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
