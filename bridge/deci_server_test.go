package bridge

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestLayersWithoutAttentionAreNamed: by the model file, and where that does not tell by what the
// server saves, with values in rows and in columns.
func TestLayersWithoutAttentionAreNamed(t *testing.T) {
	for _, flash := range []string{"on", "off"} {
		p := proberOf(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Arch: "deci", Layers: 3}), Context: 1024, Slots: 1, FlashAttention: flash})
		if _, err := p.Probe(context.Background()); !errors.Is(err, ErrUnshareable) || !strings.Contains(err.Error(), "deci has layers without attention") {
			t.Errorf("flash attention %s: got %v", flash, err)
		}
		p.Model = &Model{Vocab: p.Model.Vocab}
		if _, err := p.Probe(context.Background()); !errors.Is(err, ErrUnshareable) || !strings.Contains(err.Error(), "layer 1 keeps nothing") {
			t.Errorf("flash attention %s, without the file: got %v", flash, err)
		}
	}
}
