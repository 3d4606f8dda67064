package main

import (
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/launch"
)

// Commands that measure a server with keys say how to name one, and take it.
func TestMeasuringAServerWithKeys(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Context: 1024, APIKey: "secret"})
	t.Setenv("KEY", "secret\n") // a Secret that was made from a file
	f := func(want string, args ...string) {
		t.Helper()
		p := run(t, append(args, "--backend", b.URL, "--slot-dir", b.SlotDir)...)
		status, out := p.exit(), string(p.output())
		if status != 1 || !strings.Contains(out, want) {
			t.Errorf("%v: exit status %d, %s", args, status, out)
		}
	}
	const named = "name a key that the server accepts: --api-key-env"
	f(named, "eval", "--pairs", "eval/pairs/tuning.jsonl", "--out", t.TempDir())
	f(named, "calibrate")
	f("no agent in the server", "calibrate", "--api-key-env", "KEY")
}

func TestCalibratingInADirectoryThatGoes(t *testing.T) {
	private, err := launch.NewSlotDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = private.Remove() })
	f := func(dir string, want bool) {
		t.Helper()
		p := run(t, "calibrate", "--backend", "http://"+freeAddress(t), "--slot-dir", dir)
		if p.exit(); want != strings.Contains(string(p.output()), "goes when its serve ends, and the calibration with it") {
			t.Errorf("%s: %s", dir, p.output())
		}
	}
	f(private.Path, true)
	f(t.TempDir(), false)
}
