// Shapemodel writes a model of a given shape with random weights, f16, and the tokenizer
// and chat template of another: for timing on machines that a real model of that size
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
	vocab                                    int
}

// shapes are those of Llama 3.2 1B and Llama 3.1 8B, but for the vocabulary.
var shapes = map[string]shape{
	"1b": {layers: 16, dim: 2048, ff: 8192, heads: 32, headsKV: 8, headDim: 64},
	"8b": {layers: 32, dim: 4096, ff: 14336, heads: 32, headsKV: 8, headDim: 128},
}

func main() {
	name := flag.String("shape", "1b", "1b or 8b")
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
		return fmt.Errorf("shape %q: expected 1b or 8b", name)
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
	ones bool // f32 and 1; else f16 and random
}

func (t tensor) bytes() int {
	n := 2
	if t.ones {
		n = 4
	}
	for _, d := range t.dims {
		n *= d
	}
	return n
}

const alignment = 32

func padded(n int) int { return (n + alignment - 1) / alignment * alignment }

func (s shape) tensors() []tensor {
	q, kv := s.heads*s.headDim, s.headsKV*s.headDim
	all := []tensor{
		{name: "token_embd.weight", dims: []int{s.dim, s.vocab}},
		{name: "output_norm.weight", dims: []int{s.dim}, ones: true},
	}
	for i := range s.layers {
		add := func(name string, ones bool, dims ...int) {
			all = append(all, tensor{fmt.Sprintf("blk.%d.%s.weight", i, name), dims, ones})
		}
		add("attn_norm", true, s.dim)
		add("attn_q", false, s.dim, q)
		add("attn_k", false, s.dim, kv)
		add("attn_v", false, s.dim, kv)
		add("attn_output", false, q, s.dim)
		add("ffn_norm", true, s.dim)
		add("ffn_gate", false, s.dim, s.ff)
		add("ffn_up", false, s.dim, s.ff)
		add("ffn_down", false, s.ff, s.dim)
	}
	return all
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
		{"general.file_type", 1}, {"llama.block_count", s.layers}, {"llama.context_length", 131072},
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
		kind := uint32(1) // f16
		if t.ones {
			kind = 0
		}
		head = binary.LittleEndian.AppendUint32(head, kind)
		head = binary.LittleEndian.AppendUint64(head, uint64(at))
		at += padded(t.bytes())
	}
	if _, err := w.Write(append(head, make([]byte, padded(len(head))-len(head))...)); err != nil {
		return err
	}
	return writeTensors(w, all)
}

// writeTensors takes random weights from one block, each tensor from another place in it:
// numbers of their own would take minutes. Their size keeps the residual stream's.
func writeTensors(w io.Writer, all []tensor) error {
	block := gauss(1 << 24)
	for i, t := range all {
		rest := t.bytes()
		for at := i * 7919 * 2 % len(block); rest > 0; at = 0 {
			data := block[at:]
			if t.ones {
				data = ones(t.dims[0])
			}
			data = data[:min(rest, len(data))]
			if _, err := w.Write(data); err != nil {
				return err
			}
			rest -= len(data)
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

// gauss are n numbers of deviation 1/50 as f16.
func gauss(n int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, 0, 2*n)
	for range n {
		b = binary.LittleEndian.AppendUint16(b, half(float32(r.NormFloat64()/50)))
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
