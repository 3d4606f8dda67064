// Shapemodel writes a model of a given shape with random weights, f16 or q8_0, and the
// tokenizer and chat template of another: for timing on machines that a real model of that size
// cannot be brought to. What it answers means nothing.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"strings"
)

// shape is that of a llama with NORM RoPE.
type shape struct {
	layers, dim, ff, heads, headsKV, headDim int
	packed                                   bool // q8_0, else f16
	vocab                                    int
}

// shapes are those of Llama 3.2 1B, Llama 3.1 8B and Qwen2.5 32B, but for the vocabulary, and
// one that a CPU prefills as fast as a GPU does one of 8B.
var shapes = map[string]shape{
	"toy": {layers: 2, dim: 256, ff: 512, heads: 4, headsKV: 2, headDim: 64},
	"1b":  {layers: 16, dim: 2048, ff: 8192, heads: 32, headsKV: 8, headDim: 64},
	"8b":  {layers: 32, dim: 4096, ff: 14336, heads: 32, headsKV: 8, headDim: 128},
	"32b": {layers: 64, dim: 5120, ff: 27648, heads: 40, headsKV: 8, headDim: 128, packed: true},
}

func main() {
	name := flag.String("shape", "1b", "1b, 8b or 32b")
	tokenizer := flag.String("tokenizer", "", "GGUF `FILE` of a llama whose tokenizer is taken; what follows its metadata may be missing")
	out := flag.String("out", "", "`FILE` to write")
	flag.Parse()
	if err := run(*name, *tokenizer, *out); err != nil {
		fmt.Fprintln(os.Stderr, "shapemodel:", err)
		os.Exit(1)
	}
}

func run(name, tokenizer, out string) error {
	s, ok := shapes[name]
	if !ok {
		return fmt.Errorf("shape %q: expected 1b, 8b or 32b", name)
	}
	meta, count, vocab, err := readMetadata(tokenizer)
	if err != nil {
		return fmt.Errorf("%s: %w", tokenizer, err)
	}
	s.vocab = vocab
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	if err := s.write(w, meta, count); err != nil {
		return err
	}
	return errors.Join(w.Flush(), f.Close())
}

// ---- the other model's metadata ----

// reader notes what it reads.
type reader struct {
	r    *bufio.Reader
	seen []byte
	err  error
}

func (r *reader) take(n int) []byte {
	at := len(r.seen)
	r.seen = append(r.seen, make([]byte, n)...)
	if r.err == nil {
		_, r.err = io.ReadFull(r.r, r.seen[at:])
	}
	return r.seen[at:]
}

func (r *reader) u32() uint32  { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *reader) u64() uint64  { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *reader) text() string { return string(r.take(int(min(r.u64(), 1<<24)))) }

const (
	typeU32    = 4
	typeF32    = 6
	typeString = 8
	typeArray  = 9
)

var sizes = map[uint32]int{0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

// value skips one, and returns how many elements an array has.
func (r *reader) value(kind uint32) int {
	switch kind {
	case typeString:
		r.text()
	case typeArray:
		of, n := r.u32(), int(r.u64())
		for i := 0; i < n && r.err == nil; i++ {
			r.value(of)
		}
		return n
	default:
		r.take(sizes[kind])
	}
	return 0
}

// readMetadata returns what describes the tokenizer, as it stands in the file, how many
// entries that is, and how many tokens there are.
func readMetadata(path string) (meta []byte, count uint64, vocab int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, 0, err
	}
	defer f.Close()
	r := &reader{r: bufio.NewReaderSize(f, 1<<20)}
	magic := string(r.take(4))
	version := r.u32()
	r.u64()
	n := r.u64()
	if r.err != nil || magic != "GGUF" || version != 3 {
		return nil, 0, 0, errors.New("not a GGUF file of version 3")
	}
	for range n {
		r.seen = r.seen[:0]
		key := r.text()
		elements := r.value(r.u32())
		if r.err != nil {
			return nil, 0, 0, r.err
		}
		if key == "tokenizer.ggml.tokens" {
			vocab = elements
		}
		if strings.HasPrefix(key, "tokenizer.") {
			meta = append(meta, r.seen...)
			count++
		}
	}
	if vocab == 0 {
		return nil, 0, 0, errors.New("it has no tokenizer.ggml.tokens")
	}
	return meta, count, vocab, nil
}

// ---- the new one ----

type tensor struct {
	name string
	dims []int
	kind kind
}

// kind is a type as ggml numbers it, and its blocks.
type kind struct {
	id           uint32
	elems, bytes int
}

var (
	f32  = kind{0, 1, 4} // tensors of ones
	f16  = kind{1, 1, 2} // random ones, as those that follow
	q8_0 = kind{8, 32, 34}
)

func (t tensor) bytes() int {
	n := 1
	for _, d := range t.dims {
		n *= d
	}
	return n / t.kind.elems * t.kind.bytes
}

const alignment = 32

func padded(n int) int { return (n + alignment - 1) / alignment * alignment }

func (s shape) tensors() []tensor {
	q, kv, random := s.heads*s.headDim, s.headsKV*s.headDim, f16
	if s.packed {
		random = q8_0
	}
	all := []tensor{
		{"token_embd.weight", []int{s.dim, s.vocab}, random},
		{"output_norm.weight", []int{s.dim}, f32},
	}
	for i := range s.layers {
		add := func(name string, k kind, dims ...int) {
			all = append(all, tensor{fmt.Sprintf("blk.%d.%s.weight", i, name), dims, k})
		}
		add("attn_norm", f32, s.dim)
		add("attn_q", random, s.dim, q)
		add("attn_k", random, s.dim, kv)
		add("attn_v", random, s.dim, kv)
		add("attn_output", random, q, s.dim)
		add("ffn_norm", f32, s.dim)
		add("ffn_gate", random, s.dim, s.ff)
		add("ffn_up", random, s.dim, s.ff)
		add("ffn_down", random, s.ff, s.dim)
	}
	return all
}

// fileType is ggml's, of models that are mostly f16, or q8_0.
func (s shape) fileType() int {
	if s.packed {
		return 7
	}
	return 1
}

func (s shape) metadata() (b []byte, count uint64) {
	key := func(name string, kind uint32) {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(name)))
		b = append(b, name...)
		b = binary.LittleEndian.AppendUint32(b, kind)
		count++
	}
	key("general.architecture", typeString)
	b = append(binary.LittleEndian.AppendUint64(b, 5), "llama"...)
	for _, v := range []struct {
		name  string
		value int
	}{
		{"general.file_type", s.fileType()}, {"llama.block_count", s.layers}, {"llama.context_length", 131072},
		{"llama.embedding_length", s.dim}, {"llama.feed_forward_length", s.ff}, {"llama.vocab_size", s.vocab},
		{"llama.attention.head_count", s.heads}, {"llama.attention.head_count_kv", s.headsKV},
		{"llama.rope.dimension_count", s.headDim},
	} {
		key(v.name, typeU32)
		b = binary.LittleEndian.AppendUint32(b, uint32(v.value))
	}
	for name, value := range map[string]float32{"llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 500000} {
		key(name, typeF32)
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(value))
	}
	return b, count
}

func (s shape) write(w io.Writer, tokenizer []byte, n uint64) error {
	meta, count := s.metadata()
	all := s.tensors()
	head := append([]byte("GGUF"), 3, 0, 0, 0)
	head = binary.LittleEndian.AppendUint64(head, uint64(len(all)))
	head = binary.LittleEndian.AppendUint64(head, count+n)
	head = append(append(head, meta...), tokenizer...)
	at := 0
	for _, t := range all {
		head = binary.LittleEndian.AppendUint64(head, uint64(len(t.name)))
		head = append(head, t.name...)
		head = binary.LittleEndian.AppendUint32(head, uint32(len(t.dims)))
		for _, d := range t.dims {
			head = binary.LittleEndian.AppendUint64(head, uint64(d))
		}
		head = binary.LittleEndian.AppendUint32(head, t.kind.id)
		head = binary.LittleEndian.AppendUint64(head, uint64(at))
		at += padded(t.bytes())
	}
	if _, err := w.Write(append(head, make([]byte, padded(len(head))-len(head))...)); err != nil {
		return err
	}
	return writeTensors(w, all)
}

// writeTensors takes random weights from one stretch of blocks, each tensor from another
// place in it: numbers of their own would take minutes.
func writeTensors(w io.Writer, all []tensor) error {
	r := rand.New(rand.NewPCG(1, 1))
	random := map[kind][]byte{f16: halves(r, 1<<24), q8_0: packed(r, 1<<19)}
	for i, t := range all {
		data, at := random[t.kind], i*7919*t.kind.bytes
		if t.kind == f32 {
			data, at = ones(t.dims[0]), 0
		}
		rest := t.bytes()
		for at %= len(data); rest > 0; at = 0 {
			part := data[at:min(len(data), at+rest)]
			if _, err := w.Write(part); err != nil {
				return err
			}
			rest -= len(part)
		}
		if _, err := w.Write(make([]byte, padded(t.bytes())-t.bytes())); err != nil {
			return err
		}
	}
	return nil
}

func ones(n int) (b []byte) {
	for range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(1))
	}
	return b
}

// deviation of the random weights.
const deviation = 1. / 50

// halves are n random f16.
func halves(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, 2*n)
	for range n {
		b = binary.LittleEndian.AppendUint16(b, half(float32(r.NormFloat64()*deviation)))
	}
	return b
}

// packed are n blocks of q8_0, whose largest number is taken to be three deviations.
func packed(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, q8_0.bytes*n)
	for range n {
		b = binary.LittleEndian.AppendUint16(b, half(float32(3*deviation/127)))
		for range q8_0.elems {
			b = append(b, byte(int8(min(max(r.NormFloat64()*127/3, -127), 127))))
		}
	}
	return b
}

// half rounds towards 0; numbers too small for an ordinary f16 become 0.
func half(x float32) uint16 {
	bits := math.Float32bits(x)
	sign, exp := uint16(bits>>16&0x8000), int(bits>>23&0xff)-127+15
	if exp <= 0 {
		return sign
	}
	return sign | uint16(exp)<<10 | uint16(bits>>13&0x3ff)
}
