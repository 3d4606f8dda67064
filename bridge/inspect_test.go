package bridge

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

func TestInspectSaysWhatIsThereAndWhetherItCanBeShared(t *testing.T) {
	f := func(state, model string, want ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := Inspect(&out, filepath.Join("testdata", state), model); err != nil {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: %q is missing in\n%s", state, text, out.String())
			}
		}
	}
	llama := tinymodel.Make(t, tinymodel.Options{})
	qwen := tinymodel.Make(t, tinymodel.Options{Arch: "qwen2"})
	sliding := tinymodel.Make(t, tinymodel.Options{Arch: "gemma2"})
	deep := tinymodel.Make(t, tinymodel.Options{Layers: 3})
	wide := tinymodel.Make(t, tinymodel.Options{HeadDim: 96})
	f("state-v4-f16.bin", llama, "tokens:          16, packed", "positions 0 to 15", "stream 1", "K f16, rows of 128 bytes", "NORM", "can be shared:   yes\n")
	f("state-v4-q8.bin", qwen, "NEOX, pairs (i, i+32)", "blocks of 64", "can be shared:   yes\n")
	f("state-v2-plain.bin", "", "version:         2", "plain ids", "yes (as far as the file tells")
	f("state-v4-vtrans.bin", llama, "transposed, 64 wide")
	f("state-v4-f16.bin", sliding, "no: gemma2 has sliding-window layers")
	f("state-v4-f16.bin", deep, "2 layers, the model 3")
	f("state-v4-f16.bin", wide, "heads of 96")
}

func TestInspectNamesWhatCannotBeRead(t *testing.T) {
	f := func(data []byte, want error, verdict, text string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := Inspect(&out, path, "")
		if !errors.Is(err, want) || !strings.Contains(out.String(), verdict) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v and %q, want %v, %q and %q", err, out.String(), want, verdict, text)
		}
		if strings.Contains(out.String(), text) {
			t.Errorf("%q is said twice: %s", text, out.String())
		}
	}
	f(nil, ErrCorrupt, "no whole llama.cpp state", "0 bytes left")
	f([]byte("GGUF, not a state at all"), ErrCorrupt, "no whole llama.cpp state", "byte 0: a model file")
	f([]byte("neither the one nor the other"), ErrCorrupt, "no whole llama.cpp state", "byte 0: magic")
	f(header(4).cache(4, 0).cache(4, 0).Bytes(), ErrUnsupported, "holds what cannot be shared", "sliding-window")
	if err := Inspect(&bytes.Buffer{}, filepath.Join(t.TempDir(), "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v for no file", err)
	}
}
