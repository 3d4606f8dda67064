// Package tinymodel writes models of some hundred kilobytes with random weights,
// as GGUF files that a real llama-server loads: for tests of what needs a model's
// arithmetic but none of its wits. Text becomes one token a byte.
package tinymodel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Options say what model is written. The zero value is a llama with NORM RoPE,
// two layers, two heads of 64 elements and one KV head.
type Options struct {
	// Arch is "llama" (NORM pairs), "deci" (likewise, its second layer without attention),
	// "qwen2" (NEOX pairs, biases) or "qwen3" (NEOX pairs, norms of queries and keys); empty:
	// llama.
	Arch string
	// Layers, Heads, HeadsKV, HeadDim and FF; zeros: 2, 2, 1, 64, 128. The
	// embedding length is Heads * HeadDim.
	Layers, Heads, HeadsKV, HeadDim, FF int
	// Context is the trained length; 0: 2048.
	Context int
	// RoPEBase; 0: 10000.
	RoPEBase float32
	// Factors is the tensor rope_freqs (HeadDim/2 values; llama only), nil none.
	Factors []float32
	// Scaling is rope.scaling.type, with its factor; empty: none.
	Scaling       string
	ScalingFactor float32
	// OrigContext is rope.scaling.original_context_length; 0 leaves it out.
	OrigContext int
	// Extra are further metadata, such as "llama.attention.sliding_window".
	// Values are string, bool, uint32, int32, float32, or lists of string,
	// int32 or float32.
	Extra map[string]any
	// PackedTable packs the embeddings, by which the output is computed too, as Q4_0, and
	// fills the vocabulary up to a multiple of 8: ggml keeps such a table a second time,
	// repacked for its products.
	PackedTable bool
	// Seed of the weights.
	Seed uint64
}

// Vocab is the number of tokens: 256 bytes and the control tokens.
const Vocab = 256 + 3

// Ids of the control tokens.
const (
	EndOfText = 256 + iota
	Start
	End
)

func (o Options) withDefaults() Options {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if o.Arch == "" {
		o.Arch = "llama"
	}
	def(&o.Layers, 2)
	def(&o.Heads, 2)
	def(&o.HeadsKV, 1)
	def(&o.HeadDim, 64)
	def(&o.FF, 128)
	def(&o.Context, 2048)
	if o.RoPEBase == 0 {
		o.RoPEBase = 10000
	}
	return o
}

// WriteFile writes the model to path.
func WriteFile(path string, o Options) error {
	var b bytes.Buffer
	if err := Write(&b, o); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// WriteAdapter writes a LoRA adapter of rank 1 for a llama with that embedding length: to the
// query and value projections of the first layer it adds products of random vectors, as large
// as what they are added to.
func WriteAdapter(path string, embedding, values int, seed uint64) error {
	g := &file{}
	for _, v := range []struct {
		key   string
		value any
	}{{"general.type", "adapter"}, {"general.architecture", "llama"}, {"adapter.type", "lora"}, {"adapter.lora.alpha", float32(1)}} {
		if err := g.add(v.key, v.value); err != nil {
			return err
		}
	}
	r := rand.New(rand.NewPCG(seed, 2))
	for _, w := range []struct {
		name string
		out  int
	}{{"blk.0.attn_q.weight", embedding}, {"blk.0.attn_v.weight", values}} {
		g.tensor(w.name+".lora_a", gauss(r, embedding, 1/math.Sqrt(float64(embedding))), embedding, 1)
		g.tensor(w.name+".lora_b", gauss(r, w.out, 1), 1, w.out)
	}
	return os.WriteFile(path, g.assemble(), 0o600)
}

// Write writes the model to w.
func Write(w io.Writer, o Options) error {
	o = o.withDefaults()
	g := &file{}
	if err := o.metadata(g); err != nil {
		return err
	}
	o.tensors(g)
	_, err := w.Write(g.assemble())
	return err
}

// WriteShards writes the model to dir in three files, as gguf-split does: the metadata, the first
// two tensors, and the others. It returns the path of the first.
func WriteShards(dir string, o Options) (string, error) {
	o = o.withDefaults()
	g := &file{}
	if err := o.metadata(g); err != nil {
		return "", err
	}
	o.tensors(g)
	parts := [][]tensor{nil, g.tensors[:2], g.tensors[2:]}
	path := func(i int) string {
		return filepath.Join(dir, fmt.Sprintf("tiny-%05d-of-%05d.gguf", i+1, len(parts)))
	}
	for i, part := range parts {
		f := &file{tensors: part}
		if i == 0 {
			f.meta, f.metas = g.meta, g.metas
		}
		_ = f.add("split.no", uint16(i))
		_ = f.add("split.count", uint16(len(parts)))
		_ = f.add("split.tensors.count", int32(len(g.tensors)))
		if err := os.WriteFile(path(i), f.assemble(), 0o600); err != nil {
			return "", err
		}
	}
	return path(0), nil
}

func (o Options) metadata(g *file) error {
	key := func(name string) string { return o.Arch + "." + name }
	values := []struct {
		key   string
		value any
	}{
		{"general.architecture", o.Arch},
		{"general.name", "tiny " + o.Arch},
		{"general.file_type", uint32(0)},
		{key("block_count"), uint32(o.Layers)},
		{key("context_length"), uint32(o.Context)},
		{key("embedding_length"), uint32(o.Heads * o.HeadDim)},
		{key("feed_forward_length"), o.perLayer(o.FF, o.FF)},
		{key("attention.head_count"), o.perLayer(o.Heads, 0)},
		{key("attention.head_count_kv"), o.perLayer(o.HeadsKV, 0)},
		{key("attention.key_length"), uint32(o.HeadDim)},
		{key("attention.value_length"), uint32(o.HeadDim)},
		{key("attention.layer_norm_rms_epsilon"), float32(1e-5)},
		{key("rope.dimension_count"), uint32(o.HeadDim)},
		{key("rope.freq_base"), o.RoPEBase},
		{key("vocab_size"), uint32(o.vocab())},
		{"tokenizer.ggml.model", "gpt2"},
		{"tokenizer.ggml.pre", "gpt-2"},
		{"tokenizer.ggml.tokens", tokens(o.vocab())},
		{"tokenizer.ggml.token_type", tokenTypes(o.vocab())},
		{"tokenizer.ggml.merges", []string{}},
		{"tokenizer.ggml.bos_token_id", uint32(EndOfText)},
		{"tokenizer.ggml.eos_token_id", uint32(End)},
		{"tokenizer.ggml.add_bos_token", false},
		{"tokenizer.chat_template", chatTemplate},
	}
	for _, v := range values {
		if err := g.add(v.key, v.value); err != nil {
			return err
		}
	}
	if o.Scaling != "" {
		_ = g.add(key("rope.scaling.type"), o.Scaling)
		_ = g.add(key("rope.scaling.factor"), o.ScalingFactor)
	}
	if o.OrigContext > 0 {
		_ = g.add(key("rope.scaling.original_context_length"), uint32(o.OrigContext))
	}
	names := make([]string, 0, len(o.Extra))
	for name := range o.Extra {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := g.add(name, o.Extra[name]); err != nil {
			return err
		}
	}
	return nil
}

// attends tells whether a layer has attention.
func (o Options) attends(layer int) bool { return o.Arch != "deci" || layer != 1 }

// perLayer is a number of each layer, without for one that has no attention; one number where
// all layers are alike.
func (o Options) perLayer(n, without int) any {
	if o.Arch != "deci" {
		return uint32(n)
	}
	out := make([]int32, o.Layers)
	for i := range out {
		out[i] = int32(n)
		if !o.attends(i) {
			out[i] = int32(without)
		}
	}
	return out
}

const chatTemplate = `{% for message in messages %}<|im_start|>{{ message['role'] }}
{{ message['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}`

// vocab is the number of tokens, those included that nothing is made of.
func (o Options) vocab() int {
	if o.PackedTable {
		return (Vocab + 7) / 8 * 8
	}
	return Vocab
}

// tokens are the bytes as GPT-2 writes them, the control tokens, and unused ones up to n.
func tokens(n int) []string {
	all := make([]string, 0, n)
	next := rune(256)
	for b := range 256 {
		if b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE {
			all = append(all, string(rune(b)))
		} else {
			all = append(all, string(next))
			next++
		}
	}
	all = append(all, "<|endoftext|>", "<|im_start|>", "<|im_end|>")
	for len(all) < n {
		all = append(all, fmt.Sprintf("<|unused%d|>", len(all)))
	}
	return all
}

func tokenTypes(n int) []int32 {
	types := make([]int32, n)
	for i := range types {
		types[i] = 1
		if i >= 256 {
			types[i] = 3
		}
	}
	return types
}

func (o Options) tensors(g *file) {
	r := rand.New(rand.NewPCG(o.Seed, 1))
	dim := o.Heads * o.HeadDim
	table := gauss(r, dim*o.vocab(), 1)
	if o.PackedTable {
		g.packed("token_embd.weight", table, dim, o.vocab())
	} else {
		g.tensor("token_embd.weight", table, dim, o.vocab())
	}
	g.ones("output_norm.weight", dim)
	if o.Factors != nil {
		g.tensor("rope_freqs.weight", o.Factors, len(o.Factors))
	}
	for i := range o.Layers {
		name := func(s string) string { return fmt.Sprintf("blk.%d.%s", i, s) }
		if o.attends(i) {
			o.attention(g, r, name)
		}
		g.ones(name("ffn_norm.weight"), dim)
		g.noise(r, name("ffn_gate.weight"), dim, o.FF)
		g.noise(r, name("ffn_up.weight"), dim, o.FF)
		g.noise(r, name("ffn_down.weight"), o.FF, dim)
	}
}

// attention writes what a layer attends by.
func (o Options) attention(g *file, r *rand.Rand, name func(string) string) {
	dim, kv := o.Heads*o.HeadDim, o.HeadsKV*o.HeadDim
	g.ones(name("attn_norm.weight"), dim)
	g.noise(r, name("attn_q.weight"), dim, dim)
	g.noise(r, name("attn_k.weight"), dim, kv)
	g.noise(r, name("attn_v.weight"), dim, kv)
	if o.Arch == "qwen2" {
		g.tensor(name("attn_q.bias"), gauss(r, dim, 0.1), dim)
		g.tensor(name("attn_k.bias"), gauss(r, kv, 0.1), kv)
		g.tensor(name("attn_v.bias"), gauss(r, kv, 0.1), kv)
	}
	if o.Arch == "qwen3" {
		g.tensor(name("attn_q_norm.weight"), gauss(r, o.HeadDim, 1), o.HeadDim)
		g.tensor(name("attn_k_norm.weight"), gauss(r, o.HeadDim, 1), o.HeadDim)
	}
	g.noise(r, name("attn_output.weight"), dim, dim)
}

func (g *file) ones(name string, n int) { g.tensor(name, constant(1, n), n) }

// noise adds random weights that keep the residual stream at its size through the layers.
func (g *file) noise(r *rand.Rand, name string, in, out int) {
	g.tensor(name, gauss(r, in*out, 1/math.Sqrt(float64(in))), in, out)
}

func constant(v float32, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func gauss(r *rand.Rand, n int, scale float64) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64() * scale)
	}
	return out
}

// file collects a GGUF version 3 file.
type file struct {
	meta    bytes.Buffer
	metas   uint64
	tensors []tensor
}

type tensor struct {
	name string
	kind uint32
	dims []int
	data []byte
}

const alignment = 32

// Value types of GGUF.
const (
	typeU16    = 2
	typeU32    = 4
	typeI32    = 5
	typeF32    = 6
	typeBool   = 7
	typeString = 8
	typeArray  = 9
)

func put(b *bytes.Buffer, v any) { _ = binary.Write(b, binary.LittleEndian, v) }

func putString(b *bytes.Buffer, s string) {
	put(b, uint64(len(s)))
	b.WriteString(s)
}

func (g *file) add(key string, value any) error {
	putString(&g.meta, key)
	g.metas++
	scalar := func(t uint32, v any) error {
		put(&g.meta, t)
		put(&g.meta, v)
		return nil
	}
	list := func(t uint32, n int) {
		put(&g.meta, uint32(typeArray))
		put(&g.meta, t)
		put(&g.meta, uint64(n))
	}
	switch v := value.(type) {
	case uint16:
		return scalar(typeU16, v)
	case uint32:
		return scalar(typeU32, v)
	case int32:
		return scalar(typeI32, v)
	case float32:
		return scalar(typeF32, v)
	case bool:
		return scalar(typeBool, v)
	case string:
		put(&g.meta, uint32(typeString))
		putString(&g.meta, v)
	case []string:
		list(typeString, len(v))
		for _, s := range v {
			putString(&g.meta, s)
		}
	case []int32:
		list(typeI32, len(v))
		put(&g.meta, v)
	case []float32:
		list(typeF32, len(v))
		put(&g.meta, v)
	default:
		return fmt.Errorf("metadata %s has type %T: expected string, bool, uint32, int32, float32 or a list", key, value)
	}
	return nil
}

// Types of tensors.
const (
	tensorF32 = 0
	tensorQ40 = 2
)

// tensor adds an f32 tensor with the given dimensions, the fastest first.
func (g *file) tensor(name string, values []float32, dims ...int) {
	g.raw(name, tensorF32, values, dims)
}

// packed adds values, which are to be around 1, as a tensor of type Q4_0: blocks of 32, each
// with its step as f16 and then 4 bits a value, element i+16 above element i.
func (g *file) packed(name string, values []float32, dims ...int) {
	const step, stepF16, block = 0.5, 0x3800, 32
	four := func(v float32) byte { return byte(min(max(math.Round(float64(v)/step)+8, 0), 15)) }
	var data bytes.Buffer
	for at := 0; at < len(values); at += block {
		put(&data, uint16(stepF16))
		for i := range block / 2 {
			data.WriteByte(four(values[at+i]) | four(values[at+block/2+i])<<4)
		}
	}
	g.raw(name, tensorQ40, data.Bytes(), dims)
}

func (g *file) raw(name string, kind uint32, data any, dims []int) {
	var b bytes.Buffer
	put(&b, data)
	pad(&b)
	g.tensors = append(g.tensors, tensor{name, kind, dims, b.Bytes()})
}

// put writes what the file says of a tensor whose data begin at byte at.
func (t *tensor) put(b *bytes.Buffer, at int) {
	putString(b, t.name)
	put(b, uint32(len(t.dims)))
	for _, d := range t.dims {
		put(b, uint64(d))
	}
	put(b, t.kind)
	put(b, uint64(at))
}

func pad(b *bytes.Buffer) {
	b.Write(make([]byte, (alignment-b.Len()%alignment)%alignment))
}

func (g *file) assemble() []byte {
	var out bytes.Buffer
	out.WriteString("GGUF")
	put(&out, uint32(3))
	put(&out, uint64(len(g.tensors)))
	put(&out, g.metas)
	out.Write(g.meta.Bytes())
	var data bytes.Buffer
	for _, t := range g.tensors {
		t.put(&out, data.Len())
		data.Write(t.data)
	}
	pad(&out)
	out.Write(data.Bytes())
	return out.Bytes()
}
