package bridge

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// proberOf makes one of a real server, as the sidecar does.
func proberOf(t *testing.T, o lab.BackendOptions) Prober {
	t.Helper()
	b := lab.StartBackend(t, o)
	backend := NewBackend(b.URL, "", time.Second)
	t.Cleanup(backend.Close)
	props, err := backend.Props(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	model, err := OpenModel(b.Model)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { model.Close() })
	return Prober{Backend: backend, Props: props, Dir: b.SlotDir, Model: model, Kernels: GoKernels(), Run: "00000000000000aa"}
}

func (p Prober) mustProbe(t *testing.T) *Probed {
	t.Helper()
	got, err := p.Probe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func yarn(scale, context string) []string {
	return []string{"--rope-scaling", "yarn", "--rope-freq-scale", scale, "--yarn-orig-ctx", context}
}

// TestRoPEFlagsOfTheServerAreSeen: where they make its keys turn otherwise none are moved,
// and references are kept apart from those of other flags.
func TestRoPEFlagsOfTheServerAreSeen(t *testing.T) {
	seen := map[string]string{}
	f := func(name string, o lab.BackendOptions) {
		t.Run(name, func(t *testing.T) {
			o.Slots, o.Context = 1, max(o.Context, 8192)
			p := proberOf(t, o)
			got := p.mustProbe(t)
			if got.RoPE != nil || !strings.Contains(got.Why, "the server turns keys by another RoPE than the model file says") {
				t.Errorf("keys are moved, or not because of %q", got.Why)
			}
			if again := p.mustProbe(t); again.Key != got.Key {
				t.Errorf("the key is %s, and at the next probe %s", got.Key, again.Key)
			}
			if other := seen[got.Key]; other != "" {
				t.Errorf("the key is that of %s", other)
			}
			seen[got.Key] = name
		})
	}
	plain := func(name string, o lab.BackendOptions) {
		o.Slots, o.Context = 1, 8192
		got := proberOf(t, o).mustProbe(t)
		if got.RoPE == nil || got.NotFar != "" {
			t.Errorf("%s: keys are not moved: %q, %q", name, got.Why, got.NotFar)
		}
		seen[got.Key] = name
	}
	// SmolLM2, whose slow pairs turn by a hundredth of a degree a token.
	plain("plain", lab.BackendOptions{})
	f("YaRN, twice", lab.BackendOptions{RoPE: yarn("0.5", "8192")})

	// The server has no more context than a model was trained for, but under YaRN.
	long := tinymodel.Make(t, tinymodel.Options{Arch: "qwen2", Context: 32768, RoPEBase: 1e6})
	plain("plain, NEOX", lab.BackendOptions{Model: long})
	f("YaRN, NEOX", lab.BackendOptions{Model: long, RoPE: yarn("0.5", "32768"), Context: 32768})
	f("base, NEOX", lab.BackendOptions{Model: long, RoPE: []string{"--rope-freq-base", "1200000"}})
	f("linear, NEOX", lab.BackendOptions{Model: long, RoPE: []string{"--rope-freq-scale", "0.9"}})
	plain("plain, q4_0", lab.BackendOptions{Model: long, TypeK: "q4_0"})
	f("YaRN, q4_0", lab.BackendOptions{Model: long, TypeK: "q4_0", RoPE: yarn("0.5", "32768"), Context: 32768})
	f("another YaRN, q4_0", lab.BackendOptions{Model: long, TypeK: "q4_0", RoPE: yarn("0.25", "32768"), Context: 32768})
}

// TestKeysAreSeenToTurn: whatever the cache and the scaling in the file, keys that turn as the
// file says are moved.
func TestKeysAreSeenToTurn(t *testing.T) {
	f := func(name string, model tinymodel.Options, o lab.BackendOptions) {
		t.Run(name, func(t *testing.T) {
			model.Context = 16384
			o.Model = tinymodel.Make(t, model)
			got := proberOf(t, o).mustProbe(t)
			if got.RoPE == nil || got.NotFar != "" {
				t.Errorf("keys are not moved: %q, %q", got.Why, got.NotFar)
			}
		})
	}
	for _, cache := range []string{"f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1", "iq4_nl"} {
		f(cache, tinymodel.Options{}, lab.BackendOptions{TypeK: cache})
	}
	neox := tinymodel.Options{Arch: "qwen2", HeadDim: 96, HeadsKV: 2}
	f("keys that are not Hadamard-rotated", neox, lab.BackendOptions{TypeK: "q4_0"})
	f("values in columns", neox, lab.BackendOptions{FlashAttention: "off"})
	f("one stream, all of the context", neox, lab.BackendOptions{Unified: true, Context: 40000})
	f("little context", neox, lab.BackendOptions{Context: 512, Slots: 2})
	f("linear", tinymodel.Options{Scaling: "linear", ScalingFactor: 4}, lab.BackendOptions{})
	f("YaRN", tinymodel.Options{Arch: "qwen2", Scaling: "yarn", ScalingFactor: 4, OrigContext: 512}, lab.BackendOptions{})
}

// TestWhatCannotBeComparedFarAwayIsSaid has the server refuse a prompt, for which it has no room.
func TestWhatCannotBeComparedFarAwayIsSaid(t *testing.T) {
	p := proberOf(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 1024, Slots: 1})
	p.Props.Context = 1500
	if got := p.mustProbe(t); got.RoPE == nil || got.NotFar == "" {
		t.Errorf("keys are not moved (%q), or it is not said that they were compared near by alone", got.Why)
	}
}

// TestAnAgentWithoutTheServersSettingsIsRefused: a flag that makes keys shorter shows in none of
// their angles.
func TestAnAgentWithoutTheServersSettingsIsRefused(t *testing.T) {
	p := proberOf(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Preload: agentLibrary(t), RoPE: []string{"--yarn-attn-factor", "0.9"}})
	_, err := p.Agent(context.Background(), p.mustProbe(t))
	if err == nil || !strings.Contains(err.Error(), "--yarn-") {
		t.Errorf("the agent computes without --yarn-attn-factor, and is taken (%v)", err)
	}
}

// TestTheProbeLeavesOtherSlotsAlone: but for one, which shows whether idle slots are emptied.
func TestTheProbeLeavesOtherSlotsAlone(t *testing.T) {
	p := proberOf(t, lab.BackendOptions{Context: 3 * 1024, Slots: 3})
	p.Slot = 1
	kept := p.repeated(5, 50)
	for _, slot := range []int{0, 2} {
		if _, err := p.Backend.Prefill(context.Background(), slot, kept[:40+5*slot]); err != nil {
			t.Fatal(err)
		}
	}
	got := p.mustProbe(t)
	if got.RoPE == nil || got.NotFar != "" {
		t.Errorf("keys are not moved (%q), or were not compared far (%q)", got.Why, got.NotFar)
	}
	for slot, want := range []int{0, 0, 50} { // 0 holds less than 2
		if n, err := p.Backend.Held(context.Background(), slot); err != nil || n != want {
			t.Errorf("slot %d holds %d tokens (%v), want %d", slot, n, err, want)
		}
	}
}
