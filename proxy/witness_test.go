package proxy

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

func TestOtherWeightsHaveAKeyOfTheirOwn(t *testing.T) {
	cfg := configs.Default()
	cfg.Backend.SlotDir = t.TempDir()
	sh := &Sharer{cfg: cfg, log: zerolog.Nop()}
	f := func(x, y float32) string {
		t.Helper()
		return sh.keyOfWeights(&live{key: "m", probed: &bridge.Probed{Witness: bridge.Witness{{x, y}}}})
	}
	first, second := f(1, 0), f(0, 1)
	if first != "m" || second == first {
		t.Fatalf("keys %q and %q: want the model's for the weights that were there first, and another", first, second)
	}
	if a, b := f(1, .01), f(.01, 1); a != first || b != second {
		t.Errorf("keys %q and %q for the same weights again: want %q and %q", a, b, first, second)
	}
}

// What cannot be read says nothing of the references that are there: they are neither used
// nor dropped.
func TestWeightsThatCannotBeReadAreOthers(t *testing.T) {
	cfg := configs.Default()
	cfg.Backend.SlotDir = t.TempDir()
	sh := &Sharer{cfg: cfg, log: zerolog.Nop()}
	lv := &live{key: "m", probed: &bridge.Probed{Witness: bridge.Witness{{1, 0}}}}
	if err := os.WriteFile(filepath.Join(cfg.Backend.SlotDir, "witness-m.json"), []byte(`[{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	key := sh.keyOfWeights(lv)
	if key == "m" || sh.keyOfWeights(lv) != key {
		t.Errorf("key %q, then %q: want another than the model's, and the same again", key, sh.keyOfWeights(lv))
	}
	sh.measured = true
	if key := sh.keyOfWeights(lv); key != "m" {
		t.Errorf("key %q of a sidecar that leaves others' references alone; want the model's", key)
	}
}
