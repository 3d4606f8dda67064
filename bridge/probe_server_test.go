package bridge

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestProbeTimesAFastBackend: what is read of a fast backend is what was meant to be, of a
// recipe too, and the slot is left empty.
func TestProbeTimesAFastBackend(t *testing.T) {
	f := func(name string, o lab.BackendOptions, long int) {
		t.Run(name, func(t *testing.T) {
			o.Model, o.Preload, o.Threads = tinymodel.Make(t, tinymodel.Options{}), agentLibrary(t), 1 // threads that wait for each other make a busy machine slow
			testTimes(t, lab.StartBackend(t, o), long)
		})
	}
	f("much context", lab.BackendOptions{Context: 4096, Slots: 2}, 1024)
	f("little context", lab.BackendOptions{Context: 1024, Slots: 2}, 256)
	f("unified, idle slots emptied", lab.BackendOptions{Context: 4096, Slots: 2, Unified: true, CacheIdleSlots: true}, 1024)
	f("hardly any context", lab.BackendOptions{Context: 512, Slots: 2}, 128)
}

func testTimes(t *testing.T, b *lab.Backend, long int) {
	ctx := context.Background()
	backend := NewBackend(b.URL, "", time.Second)
	defer backend.Close()
	props, err := backend.Props(ctx)
	if err != nil {
		t.Fatal(err)
	}
	model, err := OpenModel(b.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	p := Prober{Backend: backend, Props: props, Dir: b.SlotDir, Model: model, Kernels: GoKernels()}
	got, err := p.Probe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Agent(ctx, got); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v, %+v", got.Readings, got.AgentTook)
	want := []Reading{{N: long}, {At: long, N: 1}, {At: long, N: 8}, {At: long, N: 64}}
	if len(got.Readings) != len(want) {
		t.Fatalf("%d readings, want %d", len(got.Readings), len(want))
	}
	for i, r := range got.Readings {
		if r.At != want[i].At || r.N != want[i].N || r.MS <= 0 {
			t.Errorf("reading %d is %+v, want %d tokens behind %d", i, r, want[i].N, want[i].At)
		}
	}
	if took := got.AgentTook; took.N != long || took.Recompute <= 0 || took.Rest <= 0 {
		t.Errorf("the agent took %+v, want a time of %d tokens", took, long)
	}
	if left, err := backend.Prefill(ctx, 0, p.repeated(0, 8)); err != nil || left.CacheN != 0 {
		t.Errorf("the slot still holds %d tokens (%v), want none", left.CacheN, err)
	}
	if files, err := filepath.Glob(filepath.Join(b.SlotDir, "ssk-*")); err != nil || len(files) > 0 {
		t.Errorf("%v were left behind (%v), want nothing", files, err)
	}
}

// TestAServerWithoutAPromptCacheIsRefusedByName: what is restored there is of no use.
func TestAServerWithoutAPromptCacheIsRefusedByName(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 1024, NoPromptCache: true})
	props, err := k.backend.Props(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	p := Prober{Backend: k.backend, Props: props, Dir: k.lab.SlotDir, Model: k.model, Kernels: GoKernels()}
	if _, err := p.Probe(context.Background()); !errors.Is(err, ErrUnshareable) || !strings.Contains(err.Error(), "--no-cache-prompt") {
		t.Errorf("%v, want that it is refused", err)
	}
}
