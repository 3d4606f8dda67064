package bridge

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAdaptersArePartOfTheKey: states of different scales are not mixed, those of none are as
// without the adapter, and where one is loaded the agent is refused by name.
func TestAdaptersArePartOfTheKey(t *testing.T) {
	adapter := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := tinymodel.WriteAdapter(adapter, 128, 64, 1); err != nil {
		t.Fatal(err)
	}
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), LoRA: adapter, Context: 1024})
	key := func() string {
		t.Helper()
		props, err := k.backend.Props(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if props.Adapters != 1 {
			t.Fatalf("%d adapters: expected one", props.Adapters)
		}
		p := Prober{Backend: k.backend, Props: props, Dir: k.lab.SlotDir, Model: k.model, Kernels: GoKernels()}
		probed, err := p.Probe(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Agent(context.Background(), probed); err == nil || !strings.Contains(err.Error(), "LoRA") {
			t.Errorf("the agent with %s: %v, expected that it is refused by name", props.LoRA, err)
		}
		return probed.Key
	}
	scale := func(to string) {
		t.Helper()
		resp, err := http.Post(k.lab.URL+"/lora-adapters", "application/json", strings.NewReader(`[{"id":0,"scale":`+to+`}]`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	whole := key()
	scale("0.5")
	half := key()
	scale("0")
	none := key()
	scale("1")
	if half == whole || none == whole || none == half {
		t.Errorf("keys %s, %s and %s of scales 1, 0.5 and 0: expected three", whole, half, none)
	}
	if again := key(); again != whole {
		t.Errorf("key %s, and %s when the scale was 1 again", whole, again)
	}
}
