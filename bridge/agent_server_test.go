package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	"golang.org/x/sys/cpu"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// agentLibrary is built by make csrc.
func agentLibrary(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("../bin/libsemshare-agent.so")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("run make csrc first: %v", err)
	}
	return path
}

// kitchen is a real server with the agent in it.
type kitchen struct {
	t       testing.TB
	lab     *lab.Backend
	backend *Backend
	model   *Model
}

func newKitchen(t testing.TB, o lab.BackendOptions) *kitchen {
	t.Helper()
	o.Preload, o.NoRAMCache = agentLibrary(t), true
	k := &kitchen{t: t, lab: lab.StartBackend(t, o)}
	k.backend = NewBackend(k.lab.URL, "", time.Second)
	t.Cleanup(k.backend.Close)
	m, err := OpenModel(k.lab.Model)
	if err != nil {
		t.Fatal(err)
	}
	k.model = m
	t.Cleanup(func() { m.Close() })
	return k
}

// cold computes tokens in an empty slot and returns what the server saves.
func (k *kitchen) cold(name string, tokens []int32) *State {
	k.t.Helper()
	ctx := context.Background()
	if err := k.backend.Erase(ctx, 0); err != nil {
		k.t.Fatal(err)
	}
	if _, err := k.backend.Prefill(ctx, 0, tokens); err != nil {
		k.t.Fatal(err)
	}
	return k.save(name, 0)
}

func (k *kitchen) save(name string, slot int) *State {
	k.t.Helper()
	if _, _, err := k.backend.Save(context.Background(), slot, name); err != nil {
		k.t.Fatal(err)
	}
	return k.open(name)
}

// open maps a state in the slot directory until the test ends.
func (k *kitchen) open(name string) *State {
	k.t.Helper()
	s, err := OpenState(filepath.Join(k.lab.SlotDir, name))
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { s.Close() })
	return s
}

// cook carries a recipe out in slot 1.
func (k *kitchen) cook(r *Recipe) AgentReply {
	k.t.Helper()
	reply, err := k.try(r, 1)
	if err != nil {
		k.t.Fatal(err)
	}
	return reply
}

// try is cook in any slot, where the server may refuse.
func (k *kitchen) try(r *Recipe, slot int) (AgentReply, error) {
	k.t.Helper()
	path := filepath.Join(k.lab.SlotDir, "a.recipe")
	if err := r.WriteFile(path); err != nil {
		k.t.Fatal(err)
	}
	reply, err := k.backend.Cook(context.Background(), slot, path, len(r.Tokens))
	k.t.Logf("%+v", reply)
	return reply, err
}

// off is the relative error of a state's keys and values against another's, the
// worst of all layers.
func (k *kitchen) off(got, want *State) (keys, values float64) {
	k.t.Helper()
	for l := range want.Layout.Layers {
		y := want.Layout.Layers[l]
		a, b := got.Layer(l), want.Layer(l)
		ek, ev := k.relative(y.KType, a.K, b.K), k.relative(y.VType, a.V, b.V)
		keys = max(keys, ek)
		values = max(values, ev)
	}
	return keys, values
}

func (k *kitchen) relative(t KVType, a, b []byte) float64 {
	k.t.Helper()
	x, err := floats(GoKernels(), t, a)
	if err != nil {
		k.t.Fatal(err)
	}
	y, err := floats(GoKernels(), t, b)
	if err != nil {
		k.t.Fatal(err)
	}
	return relativeError(x, y)
}

func all(n int, depth int) []uint16 {
	out := make([]uint16, n)
	for i := range out {
		out[i] = uint16(depth)
	}
	return out
}

// TestAgentRecomputesWhatTheServerComputes has the agent compute every token of a
// prompt, from references that have nothing to do with it, and compares the cache
// with the server's own.
func TestAgentRecomputesWhatTheServerComputes(t *testing.T) {
	f := func(name string, model tinymodel.Options, o lab.BackendOptions, tolerance float64) {
		withKernels(t, name, func(t *testing.T) {
			o.Model, o.Context = tinymodel.Make(t, model), 4096
			testRecomputesAll(t, newKitchen(t, o), randomTokens(700, 1), randomTokens(300, 2), tolerance)
		})
	}
	factors := make([]float32, 32)
	for i := range factors {
		factors[i] = 1 + float32(i)/4
	}
	f("llama", tinymodel.Options{Layers: 4}, lab.BackendOptions{}, 3e-3)
	f("llama, factors, unified, V transposed", tinymodel.Options{Layers: 4, Factors: factors}, lab.BackendOptions{Unified: true, FlashAttention: "off"}, 3e-3)
	f("llama, YaRN", tinymodel.Options{Layers: 4, Scaling: "yarn", ScalingFactor: 4, OrigContext: 512}, lab.BackendOptions{}, 3e-3)
	f("qwen2", tinymodel.Options{Arch: "qwen2", Layers: 4}, lab.BackendOptions{}, 3e-3)
	f("qwen3", tinymodel.Options{Arch: "qwen3", Layers: 4}, lab.BackendOptions{}, 3e-3)
	f("llama, no heads share keys", tinymodel.Options{Layers: 4, Heads: 4, HeadsKV: 4}, lab.BackendOptions{}, 3e-3)
	f("llama, four heads share keys", tinymodel.Options{Layers: 4, Heads: 8, HeadsKV: 2, HeadDim: 32}, lab.BackendOptions{}, 3e-3)
	f("llama, table kept twice", tinymodel.Options{Layers: 4, PackedTable: true}, lab.BackendOptions{}, 3e-3)
	f("llama, as many layers as one graph has", tinymodel.Options{Layers: 64}, lab.BackendOptions{}, 3e-3)
	f("qwen2, q8_0", tinymodel.Options{Arch: "qwen2", Layers: 4}, lab.BackendOptions{TypeK: "q8_0", TypeV: "q8_0", FlashAttention: "on"}, 3e-2)
}

// withKernels runs a test with the agent's own kernels, where the machine has any, and
// with ggml's, which lay tokens out in ways of their own.
// ownKernels are those of the agent's own that this processor can have.
func ownKernels() (names []string) {
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA {
		names = append(names, "avx2")
	}
	if cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL {
		names = append(names, "avx512")
	}
	return names
}

func withKernels(t *testing.T, name string, f func(t *testing.T)) {
	for _, kernels := range append(ownKernels(), "ggml") {
		t.Run(name+", kernels "+kernels, func(t *testing.T) {
			t.Setenv("SEMSHARE_AGENT_KERNELS", kernels)
			f(t)
		})
	}
}

func testRecomputesAll(t *testing.T, k *kitchen, tokens, other []int32, tolerance float64) {
	want := k.cold("want", tokens)
	ref := k.cold("ref", other)
	layers := len(ref.Layout.Layers)
	testRecomputes(t, k, &Recipe{Tokens: tokens, Depth: all(len(tokens), layers), Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}, want, tolerance)
}

func testRecomputes(t *testing.T, k *kitchen, r *Recipe, want *State, tolerance float64) {
	t.Helper()
	tokens := r.Tokens
	k.cook(r)
	keys, values := k.off(k.save("got", 1), want)
	t.Logf("keys off by %.2g, values by %.2g", keys, values)
	if !(keys <= tolerance && values <= tolerance) {
		t.Errorf("keys are off by %.2g, values by %.2g: expected at most %.2g", keys, values, tolerance)
	}
	ctx := context.Background()
	got, err := k.backend.Prefill(ctx, 1, append(tokens[:len(tokens):len(tokens)], tokens[0]))
	if err != nil {
		t.Fatal(err)
	}
	if got.CacheN != len(tokens) {
		t.Errorf("the server found %d tokens in its cache: expected %d", got.CacheN, len(tokens))
	}
}

// TestAgentOnTheRealModel: with ggml's kernels the agent computes the server's own bits.
// Quantised weights quantise activations too, so that the last bit of a sum can tip a
// value over, and thirty layers let that grow: with kernels of its own, which add up in
// another order, what must agree closely is the first layer, and what the model says next
// must differ no more than when the server's own attention adds up otherwise.
func TestAgentOnTheRealModel(t *testing.T) {
	_, otherwise := newKitchen(t, lab.BackendOptions{Context: 2048, FlashAttention: "off"}).asServed()
	f := func(kernels string, first, all, times float64) {
		t.Run(kernels, func(t *testing.T) {
			t.Setenv("SEMSHARE_AGENT_KERNELS", kernels)
			k := newKitchen(t, lab.BackendOptions{Context: 2048})
			whole, want := k.asServed()
			computed, got := k.asComputed()
			y := whole.Layout.Layers[0]
			off := max(k.relative(y.KType, computed.Layer(0).K, whole.Layer(0).K), k.relative(y.VType, computed.Layer(0).V, whole.Layer(0).V))
			keys, values := k.off(computed, whole)
			kl, most := 0.0, 0.0
			for i := range want {
				kl += divergence(want[i], got[i]) / float64(len(want))
				most += divergence(want[i], otherwise[i]) / float64(len(want))
			}
			t.Logf("first layer off by %.2g, keys by %.2g, values by %.2g; mean KL of the next token %.2g, of attention in another order %.2g", off, keys, values, kl, most)
			if !(off <= first && keys <= all && values <= all && kl <= max(0.01, times*most)) {
				t.Errorf("first layer off by %.2g, keys by %.2g, values by %.2g; mean KL of the next token %.2g: expected at most %.2g, %.2g, %.2g, %.2g", off, keys, values, kl, first, all, all, max(0.01, times*most))
			}
		})
	}
	f("ggml", 0, 0, 0)
	for _, kernels := range ownKernels() {
		f(kernels, 1e-4, 0.1, 2)
	}
}

// The tests' text is cut at these places, and the token behind each is asked for.
const textCuts, cutEvery, firstCut = 8, 25, 50

func (k *kitchen) textTokens() []int32 {
	k.t.Helper()
	text, err := os.ReadFile("../LICENSE")
	if err != nil {
		k.t.Fatal(err)
	}
	tokens, err := k.backend.Tokenize(context.Background(), "", string(text[2000:3400]), true, false)
	if err != nil {
		k.t.Fatal(err)
	}
	return tokens
}

// asServed is the longest prompt's state as the server computes it, and what is said next
// behind each.
func (k *kitchen) asServed() (*State, []map[int64]float64) {
	return k.saysNext(0, func(tokens []int32) *State { return k.cold(fmt.Sprintf("cold-%d", len(tokens)), tokens) })
}

// asComputed is the same, all of it computed by the agent.
func (k *kitchen) asComputed() (*State, []map[int64]float64) {
	other := k.cold("other", k.textTokens()[100:200])
	return k.saysNext(1, func(tokens []int32) *State {
		k.cook(&Recipe{Tokens: tokens, Depth: all(len(tokens), len(other.Layout.Layers)), Layout: &other.Layout, Refs: []*State{other}, RoPE: k.model.RoPE})
		return k.save("got", 1)
	})
}

// saysNext has each prompt put into the slot, and asks what is said next.
func (k *kitchen) saysNext(slot int, fill func(tokens []int32) *State) (*State, []map[int64]float64) {
	tokens := k.textTokens()
	var said []map[int64]float64
	var s *State
	for i := range textCuts {
		n := firstCut + i*cutEvery
		s = fill(tokens[:n])
		said = append(said, k.next(slot, tokens[:n+1]))
	}
	return s, said
}

func divergence(p, q map[int64]float64) float64 {
	kl := 0.0
	for id, x := range p {
		kl += x * math.Log(x/max(q[id], 1e-6))
	}
	return kl
}

// next is the distribution of the token behind tokens, all but the last of which the
// slot holds.
func (k *kitchen) next(slot int, tokens []int32) map[int64]float64 {
	k.t.Helper()
	reply, err := k.backend.post(context.Background(), "/completion", "", map[string]any{
		"prompt": tokens, "n_predict": 1, "id_slot": slot, "cache_prompt": true, "n_probs": 100, "temperature": 0,
	})
	if err != nil {
		k.t.Fatal(err)
	}
	if n := int(gjson.GetBytes(reply, "timings.cache_n").Int()); n != len(tokens)-1 {
		k.t.Fatalf("the slot held %d of %d tokens", n, len(tokens))
	}
	out := map[int64]float64{}
	for _, p := range gjson.GetBytes(reply, "completion_probabilities.0.top_logprobs").Array() {
		out[p.Get("id").Int()] = math.Exp(p.Get("logprob").Float())
	}
	return out
}

// TestAgentMovesWhatTheRecipeMoves: a passage moved behind another one is what the
// sidecar itself would compose, also out of a reference that is kept packed.
func TestAgentMovesWhatTheRecipeMoves(t *testing.T) {
	f := func(name string, o lab.BackendOptions) {
		t.Run(name, func(t *testing.T) {
			o.Model, o.Context = tinymodel.Make(t, tinymodel.Options{Arch: "qwen2"}), 4096
			k := newKitchen(t, o)
			ref := k.cold("ref", randomTokens(300, 1))
			testMoves(t, k, ref, ref)
			testMoves(t, k, ref, k.packed("packed", ref, "q8_0/q5_1"))
		})
	}
	f("f16", lab.BackendOptions{})
	f("V transposed", lab.BackendOptions{FlashAttention: "off"})
}

// TestAgentRepliesOnlyWhereItIsAsked: it makes no file, follows no link, and what it wrote is
// gone once it was read.
func TestAgentRepliesOnlyWhereItIsAsked(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{})})
	recipe, other := filepath.Join(k.lab.SlotDir, "a.recipe"), filepath.Join(t.TempDir(), "other")
	for path, text := range map[string]string{recipe: "sskr, but no recipe", other: "as it was"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, reply := context.Background(), recipe+".reply"
	gone := func() {
		t.Helper()
		if _, err := os.Lstat(reply); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a reply: %v", err)
		}
	}
	if _, err := k.backend.Restore(ctx, 1, "a.recipe"); err == nil {
		t.Error("what is no recipe was carried out")
	}
	gone()
	if err := os.Symlink(other, reply); err != nil {
		t.Fatal(err)
	}
	if _, err := k.backend.Restore(ctx, 1, "a.recipe"); err == nil {
		t.Error("what is no recipe was carried out")
	}
	if text, err := os.ReadFile(other); err != nil || string(text) != "as it was" {
		t.Errorf("the agent followed a link, and wrote %q (%v)", text, err)
	}
	_, err := k.backend.Cook(ctx, 1, filepath.Join(k.lab.SlotDir, "a.recipe"), 1)
	if err == nil || !strings.Contains(err.Error(), "the agent could not carry out the recipe") {
		t.Errorf("%v: expected the agent's reason", err)
	}
	gone()
}

// TestAgentWhereCellsAreScattered: where the server has no run of cells for the prompt,
// the agent makes it aside, and the server puts it where there is room.
func TestAgentWhereCellsAreScattered(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 512, Unified: true})
	ref := k.cold("ref", randomTokens(250, 1))
	ctx := context.Background()
	for slot := range 2 {
		if err := k.backend.Erase(ctx, slot); err != nil {
			t.Fatal(err)
		}
	}
	for slot := range 2 {
		if _, err := k.backend.Prefill(ctx, slot, randomTokens(150, uint64(2+slot))); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.backend.Erase(ctx, 0); err != nil {
		t.Fatal(err)
	}
	r := &Recipe{Tokens: ref.Tokens, Depth: all(250, 0), Runs: []Run{{Len: 250}}, Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
	for i := 200; i < 220; i++ {
		r.Depth[i] = uint16(len(ref.Layout.Layers))
	}
	reply, err := k.try(r, 0)
	if err != nil {
		t.Fatal(err)
	}
	if reply.Cache != "aside" || !strings.Contains(reply.Aside, "not one run") {
		t.Errorf("the rows were made in the cache's %q: %q", reply.Cache, reply.Aside)
	}
	keys, values := k.off(k.save("got", 0), ref)
	if !(keys <= 1e-3 && values <= 1e-3) {
		t.Errorf("keys are off by %.2g, values by %.2g: expected at most 0.001", keys, values)
	}
}

// packed is a state as the store keeps it.
func (k *kitchen) packed(name string, s *State, compress string) *State {
	k.t.Helper()
	c, err := ParseCompression(compress)
	if err != nil {
		k.t.Fatal(err)
	}
	path := filepath.Join(k.lab.SlotDir, name)
	if err := rewriteState(s, path, c.Layout(&s.Layout), GoKernels(), 1); err != nil {
		k.t.Fatal(err)
	}
	return k.open(name)
}

// testMoves moves the end of the reference, for a server that has the layout of the state server.
func testMoves(t *testing.T, k *kitchen, server, ref *State) {
	t.Helper()
	const n = 200
	tokens := append([]int32{}, ref.Tokens[100:300]...)
	run := Run{Src: 100, Len: n, Delta: -100}
	reply := k.cook(&Recipe{Tokens: tokens, Depth: all(n, 0), Runs: []Run{run}, Layout: &server.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE})
	// What lies in columns is not kept on the device when it is saved.
	if kept := ref == server && !server.Layout.VTrans; reply.Cache == "cuda" && (reply.Brought == 0) != kept {
		t.Errorf("%d references were brought to the device: expected none but what the server did not save itself", reply.Brought)
	}
	got := k.save("got", 1)

	pos := make([]int32, n)
	for i := range pos {
		pos[i] = int32(i)
	}
	w, err := CreateState(filepath.Join(k.lab.SlotDir, "want"), &server.Layout, 1, tokens, pos)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := w.Jobs([]*State{ref})
	if err != nil {
		t.Fatal(err)
	}
	if err := GoKernels().Compose(jobs, []Run{run}, k.model.RoPE, 1); err != nil {
		t.Fatal(err)
	}
	for l := range jobs {
		if a := got.Layer(l); !bytes.Equal(a.K, jobs[l].K) || !bytes.Equal(a.V, jobs[l].V) {
			t.Errorf("layer %d is not what Kernels.Compose makes", l)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestAgentComputesFewTokens: how many decides how they are laid out for attention. Those
// computed are all that follow a change, so the outcome is exact.
func TestAgentComputesFewTokens(t *testing.T) {
	for _, heads := range []int{2, 8} {
		withKernels(t, fmt.Sprintf("%d heads", heads), func(t *testing.T) {
			k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Layers: 4, Heads: heads, HeadsKV: 2, HeadDim: 32}), Context: 2048})
			tokens := randomTokens(400, 1)
			want := k.cold("want", tokens)
			for _, few := range []int{1, 3, 24, 40, 75, 130} {
				at := len(tokens) - few
				old := append([]int32{}, tokens...)
				old[at]++
				r := k.computing(tokens, k.cold("ref", old), func(i int) bool { return i >= at })
				t.Run(fmt.Sprintf("%d tokens", few), func(t *testing.T) { testRecomputes(t, k, r, want, 3e-3) })
			}
		})
	}
}

// TestAgentRecomputesScatteredTokens: where only some tokens differ, computing those
// and all that come after them is exact, and deviation finds those that come after.
func TestAgentRecomputesScatteredTokens(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Layers: 4}), Context: 4096})
	const n = 600
	old := randomTokens(n, 1)
	tokens := append([]int32{}, old...)
	var changed []int
	for i := 50; i < n; i += 97 {
		tokens[i]++
		changed = append(changed, i)
	}
	ref, want := k.cold("ref", old), k.cold("want", tokens)
	recipe := func() *Recipe {
		r := &Recipe{Tokens: tokens, Depth: make([]uint16, n), Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
		at := int32(0)
		for _, c := range append(changed, n) {
			r.Runs = append(r.Runs, Run{Src: at, Dst: at, Len: int32(c) - at})
			at = int32(c) + 1
		}
		for _, c := range changed {
			r.Depth[c] = 4
		}
		return r
	}
	t.Run("all that follow", func(t *testing.T) {
		r := recipe()
		for i := changed[0]; i < n; i++ {
			r.Depth[i] = 4
		}
		testRecomputes(t, k, r, want, 3e-3)
	})
	t.Run("all by deviation", func(t *testing.T) {
		r := recipe()
		r.Extra = Deviating{ShareFirst: 1, ShareLast: 1}
		testRecomputes(t, k, r, want, 3e-3)
	})
	off := func(r *Recipe) float64 {
		reply := k.cook(r)
		_, values := k.off(k.save("got", 1), want)
		t.Logf("%d of %d through a layer, values off by %.2g", reply.Through, 3*n, values)
		return values
	}
	none := recipe()
	none.Runs = []Run{{Len: n}}
	none.Depth = make([]uint16, n)
	changedOnly, some, third := recipe(), recipe(), recipe()
	some.Extra = Deviating{ShareFirst: 0.3, ShareLast: 0.1}
	for i := range third.Depth {
		if third.Depth[i] == 0 && i%3 == 0 {
			third.Depth[i] = 2
		}
	}
	a, b, c := off(none), off(changedOnly), off(some)
	if !(c < b && b < a) {
		t.Errorf("values are off by %.2g with nothing computed, %.2g with what changed, %.2g with what deviates too: expected less each time", a, b, c)
	}
	off(third)
}
