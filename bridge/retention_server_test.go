package bridge

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAgentRetainsAShareOfTheCells: what is kept is what the whole recipe makes, in the
// right places, with the first and last cells and those that must be kept.
func TestAgentRetainsAShareOfTheCells(t *testing.T) {
	f := func(name string, o lab.BackendOptions) {
		t.Run(name, func(t *testing.T) {
			o.Model, o.Context = tinymodel.Make(t, tinymodel.Options{Layers: 4}), 4096
			testRetains(t, newKitchen(t, o))
		})
	}
	f("f16", lab.BackendOptions{})
	f("V transposed", lab.BackendOptions{FlashAttention: "off"})
	f("q8_0", lab.BackendOptions{TypeK: "q8_0", TypeV: "q8_0", FlashAttention: "on"})
}

func testRetains(t *testing.T, k *kitchen) {
	const n, named = 700, 333
	tokens := randomTokens(n, 1)
	ref := k.packed("ref", k.cold("cold", tokens), "q8_0")
	server := k.cold("cold", tokens)
	r := &Recipe{Tokens: tokens, Depth: make([]uint16, n), Runs: []Run{{Len: n}}, Layout: &server.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
	k.cook(r)
	whole := k.save("whole", 1)
	r.Retention, r.Keep, r.Following = 0.58, make([]bool, n), randomTokens(3, 2)
	r.Keep[named] = true
	if reply := k.cook(r); reply.Cells != 406 {
		t.Errorf("%d cells: expected 58 %% of %d, 406", reply.Cells, n)
	}
	kept := k.save("kept", 1)
	for _, pos := range []int32{0, 15, named, n - 32, n - 1} {
		if _, ok := kept.Row(pos); !ok {
			t.Errorf("the cell at %d was not kept", pos)
		}
	}
	for i, pos := range kept.Pos {
		row, ok := whole.Row(pos)
		if !ok {
			t.Fatalf("a cell at %d, which the whole has not", pos)
		}
		for l := range whole.Layout.Layers {
			if !bytes.Equal(cellOf(kept, l, i), cellOf(whole, l, row)) {
				t.Fatalf("layer %d: the cell at %d is another than in the whole", l, pos)
			}
		}
	}
	got, err := k.backend.Prefill(context.Background(), 1, append(tokens[:n:n], tokens[0]))
	if err != nil {
		t.Fatal(err)
	}
	if got.CacheN != n {
		t.Errorf("the server found %d tokens in its cache: expected %d", got.CacheN, n)
	}
}

// TestAgentDraftsWhatTheServerAnswers: behind tokens that only follow, in one batch and in
// several, the agent's draft is the server's own greedy answer, made aside for retention or
// in the server's cache for what an answer attends to.
func TestAgentDraftsWhatTheServerAnswers(t *testing.T) {
	f := func(name string, model tinymodel.Options, o lab.BackendOptions, following int) {
		t.Run(name, func(t *testing.T) {
			o.Model, o.Context = tinymodel.Make(t, model), 4096
			testDrafts(t, newKitchen(t, o), following)
		})
	}
	f("llama", tinymodel.Options{}, lab.BackendOptions{}, 1)
	f("llama, table kept twice", tinymodel.Options{PackedTable: true}, lab.BackendOptions{}, 1)
	f("llama, many follow", tinymodel.Options{}, lab.BackendOptions{}, 700)
	f("qwen2, V transposed", tinymodel.Options{Arch: "qwen2"}, lab.BackendOptions{FlashAttention: "off"}, 5)
	f("qwen3", tinymodel.Options{Arch: "qwen3"}, lab.BackendOptions{}, 40)
}

func testDrafts(t *testing.T, k *kitchen, following int) {
	const n = 300
	prompt := randomTokens(n+following, 3)
	ref := k.cold("ref", prompt[:n:n])
	draft := func(retention, attended float64) []int32 {
		r := &Recipe{Tokens: prompt[:n:n], Following: prompt[n:], Retention: retention, Attended: attended, Displaced: make([]bool, n), Depth: make([]uint16, n), Runs: []Run{{Len: n}},
			Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
		for i := range r.Displaced {
			r.Displaced[i] = i%2 == 0
		}
		reply := k.cook(r)
		if want := int(math.Ceil(retention * n)); reply.Cells != want {
			t.Errorf("retention %g: %d cells, expected %d without those of the draft", retention, reply.Cells, want)
		}
		return reply.Drafted
	}
	aside, inCache := draft(0.5, 0), draft(1, 0.5)
	k.cold("whole", prompt)
	var want []int32
	for range DraftTokens {
		best, most := int64(-1), math.Inf(-1)
		for token, logprob := range k.next(0, append(prompt[:len(prompt):len(prompt)], want...)) {
			if logprob > most {
				best, most = token, logprob
			}
		}
		want = append(want, int32(best))
	}
	if !slices.Equal(aside, want) || !slices.Equal(inCache, want) {
		t.Errorf("drafted %v aside and %v in the cache: the server answers %v", aside, inCache, want)
	}
}

// TestAgentGivesBackWhatItKeepsWhenTheServerSleeps: the memory is for others then.
func TestAgentGivesBackWhatItKeepsWhenTheServerSleeps(t *testing.T) {
	const n = 300
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 4096, Sleep: 4, Threads: 1})
	prompt := randomTokens(n, 3)
	half := func(ref *State) {
		k.cook(&Recipe{Tokens: prompt, Depth: make([]uint16, n), Runs: []Run{{Len: n}}, Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE, Retention: 0.5, Following: []int32{1}})
	}
	half(k.cold("ref", prompt))
	if k.memoryFiles() == 0 {
		t.Fatal("the agent keeps no memory file: this test shows nothing")
	}
	deadline := time.Now().Add(30 * time.Second)
	for k.memoryFiles() > 0 && time.Now().Before(deadline) {
		time.Sleep(50 * time.Millisecond)
	}
	if files := k.memoryFiles(); files > 0 {
		t.Errorf("the agent still has %d memory files after 30 s: the server sleeps after 4", files)
	}
	half(k.cold("again", prompt))
}

// memoryFiles is how many of them the agent has.
func (k *kitchen) memoryFiles() (n int) {
	k.t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", k.lab.Pid())
	fds, err := os.ReadDir(dir)
	if err != nil {
		k.t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(filepath.Join(dir, fd.Name())); strings.HasPrefix(to, "/memfd:semshare-state") {
			n++
		}
	}
	return n
}

// cellOf is a row's keys and values.
func cellOf(s *State, layer, row int) []byte {
	y, l := &s.Layout.Layers[layer], s.Layer(layer)
	out := append([]byte(nil), l.K[row*int(y.KRow):(row+1)*int(y.KRow)]...)
	if !s.Layout.VTrans {
		return append(out, l.V[row*int(y.VRow):(row+1)*int(y.VRow)]...)
	}
	for i := range int(y.VWidth) {
		at := (i*s.Cells() + row) * int(y.VElem)
		out = append(out, l.V[at:at+int(y.VElem)]...)
	}
	return out
}

// TestRetentionMakesRoomForMorePrompts: in a cache of 20,480 cells four prompts of
// 5,000 tokens live at once, and seven of them at 58 %.
func TestRetentionMakesRoomForMorePrompts(t *testing.T) {
	const n, slots, cells = 5000, 8, 20480
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Context: cells}), Context: cells, Slots: slots, Unified: true})
	live := func(retention float64) int {
		var recipes []*Recipe
		for i := range slots {
			ref := k.cold("ref"+string(rune('a'+i)), randomTokens(n, uint64(i)))
			recipes = append(recipes, &Recipe{Tokens: ref.Tokens, Depth: make([]uint16, n), Runs: []Run{{Len: n}},
				Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE, Retention: retention, Following: []int32{1}})
		}
		for i := range slots {
			if err := k.backend.Erase(context.Background(), i); err != nil {
				t.Fatal(err)
			}
		}
		fit := 0
		for fit < slots {
			if _, err := k.try(recipes[fit], fit); err != nil {
				break
			}
			fit++
		}
		for i := range fit {
			got, err := k.backend.Prefill(context.Background(), i, append(recipes[i].Tokens[:n:n], 1))
			if err != nil || got.CacheN != n {
				t.Fatalf("slot %d, prompt %d of %d: %d tokens cached, %v", i, i+1, fit, got.CacheN, err)
			}
		}
		for i := range slots {
			if err := k.backend.Erase(context.Background(), i); err != nil {
				t.Fatal(err)
			}
		}
		return fit
	}
	if whole, kept := live(1), live(0.58); whole != 4 || kept != 7 {
		t.Errorf("%d whole prompts fit, and %d at 58 %%: expected 4 and 7", whole, kept)
	}
}
