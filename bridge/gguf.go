package bridge

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
	gguf "github.com/gpustack/gguf-parser-go"
)

// ErrModel is wrapped by errors about model files.
var ErrModel = errors.New("model file")

// Model is what the sidecar needs to know of a GGUF model file, which stays
// mapped until Close. It is safe for concurrent use.
type Model struct {
	Path string
	// Hash is the xxHash64 of the file's header, tensor list and 64 samples of
	// 1 MiB evenly spaced over the rest (all of it where it is smaller), and of
	// its size: no two models that differ in training share it, and the largest
	// takes milliseconds. Of a model of several files it is that of their hashes.
	Hash string
	// Arch and Name are general.architecture and general.name.
	Arch, Name string
	// Layers, KV heads (the most of any layer), elements of a key, vocabulary,
	// and embedding length.
	Layers, HeadsKV, HeadDim, Vocab, Dim int
	// Context is the length the model was trained for.
	Context int
	// RoPE is nil where keys cannot be moved; see Unshareable.
	RoPE *RoPE
	// Embedding is the type of the token embedding table.
	Embedding KVType
	FIM       FIMTokens
	// AddBOS says that the tokenizer puts BOS before every prompt; BOS is -1 where the
	// model has none.
	AddBOS bool
	BOS    int32
	// Unshareable names why the model's KV cannot be shared, "" where it can.
	Unshareable string

	shards []shard
	embed  []byte // the embedding table
	row    int64
	pieces pieces
}

// FIMTokens are the ids that mark the parts of an infill prompt, -1 where the
// model has none.
type FIMTokens struct{ Prefix, Suffix, Middle, Repo, Separator int32 }

// What a model's numbers may be at most; larger ones mean a broken file.
const (
	maxVocab   = 1 << 22
	maxDim     = 1 << 17
	maxHeadDim = 1 << 13
)

// OpenModel reads the metadata of the GGUF file at path and maps its embedding
// table. Where it is one of several that gguf-split made, all are one model. Errors wrap
// ErrModel, or are the operating system's.
func OpenModel(path string) (*Model, error) {
	shards, err := openShards(path)
	if err != nil {
		return nil, err
	}
	model, err := readModel(path, shards)
	if err != nil {
		_ = closeShards(shards)
		return nil, fmt.Errorf("%w %s: %w", ErrModel, path, err)
	}
	return model, nil
}

// Replaced tells whether another file is at the model's path now, or other content. One
// that is gone was not replaced, or not yet.
func (m *Model) Replaced() bool {
	return slices.ContainsFunc(m.shards, func(s shard) bool { return s.replaced() })
}

func readModel(path string, shards []shard) (*Model, error) {
	for _, s := range shards {
		if len(s.m.data) < 24 || string(s.m.data[:4]) != "GGUF" {
			return nil, fmt.Errorf("no GGUF magic at the start of %s: expected a GGUF model", s.path)
		}
	}
	file, err := parseGGUF(path)
	if err != nil {
		return nil, err
	}
	meta := metadata{file: file}
	model := &Model{Path: path, shards: shards, Arch: meta.str("general.architecture"), Name: meta.str("general.name")}
	meta.arch = model.Arch
	if model.Arch == "" {
		return nil, errors.New("no general.architecture")
	}
	if err := model.readShape(&meta); err != nil {
		return nil, err
	}
	if err := model.readEmbedding(file); err != nil {
		return nil, err
	}
	model.pieces = readPieces(&meta)
	model.readSpecial(&meta)
	model.readRoPE(&meta)
	model.Hash = model.hash(file)
	return model, nil
}

// parseGGUF keeps what a broken file does to the parser from reaching us.
func parseGGUF(path string) (file *gguf.GGUFFile, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("broken GGUF: %v", r)
		}
	}()
	return gguf.ParseGGUFFile(path, gguf.UseMMap())
}

// Close unmaps its files.
func (m *Model) Close() error { return closeShards(m.shards) }

func (m *Model) readShape(meta *metadata) error {
	m.Layers = meta.num("block_count", 0)
	m.Dim = meta.num("embedding_length", 0)
	m.Context = meta.num("context_length", 0)
	heads := meta.num("attention.head_count", 0)
	m.HeadsKV = meta.num("attention.head_count_kv", heads)
	if heads > 0 {
		m.HeadDim = m.Dim / heads
	}
	m.HeadDim = meta.num("attention.key_length", m.HeadDim)
	switch {
	case m.Layers < 1 || m.Layers > maxLayers:
		return fmt.Errorf("%d layers: expected 1 to %d", m.Layers, maxLayers)
	case m.Dim < 1 || m.Dim > maxDim:
		return fmt.Errorf("embeddings of %d: expected 1 to %d", m.Dim, maxDim)
	case m.HeadDim < 0 || m.HeadDim > maxHeadDim:
		return fmt.Errorf("keys of %d elements: expected up to %d", m.HeadDim, maxHeadDim)
	}
	return nil
}

// readEmbedding finds the embedding table. A model without a readable one (an
// unknown type) still opens: matching then goes by identity.
func (m *Model) readEmbedding(file *gguf.GGUFFile) error {
	t, data, ok := m.tensor(file, "token_embd.weight")
	if !ok || len(t.Dimensions) != 2 || t.Dimensions[0] != uint64(m.Dim) {
		return nil
	}
	if t.Dimensions[1] > maxVocab {
		return fmt.Errorf("%d token embeddings: expected up to %d", t.Dimensions[1], maxVocab)
	}
	m.Vocab, m.Embedding = int(t.Dimensions[1]), KVType(t.Type)
	row, err := m.Embedding.RowBytes(m.Dim)
	if err != nil {
		return nil
	}
	size := int64(row) * int64(m.Vocab)
	if size > int64(len(data)) {
		return fmt.Errorf("token embeddings of %d bytes: the file has %d from where they begin", size, len(data))
	}
	m.embed, m.row = data[:size], int64(row)
	return nil
}

// Tokens is how many token ids the model has, 0 where the file does not tell.
func (m *Model) Tokens() int { return cmp.Or(len(m.pieces.text), m.Vocab) }

// HasEmbeddings tells whether EmbeddingRow works.
func (m *Model) HasEmbeddings() bool { return m.row > 0 }

// EmbeddingRow writes the embedding of a token, Dim values, to dst.
func (m *Model) EmbeddingRow(k *Kernels, token int32, dst []float32) error {
	switch {
	case !m.HasEmbeddings():
		return fmt.Errorf("%w %s: no readable token embeddings (type %s)", ErrModel, m.Path, m.Embedding)
	case token < 0 || int(token) >= m.Vocab:
		return fmt.Errorf("token %d: expected 0 to %d", token, m.Vocab-1)
	case len(dst) != m.Dim:
		return fmt.Errorf("room for %d values: expected %d", len(dst), m.Dim)
	}
	return k.Dequantize(m.Embedding, m.embed[int64(token)*m.row:][:m.row], dst)
}

// readSpecial reads the ids of special tokens.
func (m *Model) readSpecial(meta *metadata) {
	id := func(keys ...string) int32 {
		for _, key := range keys {
			if v := meta.num("tokenizer.ggml."+key, -1); v >= 0 && v < max(m.Vocab, len(m.pieces.text)) {
				return int32(v)
			}
		}
		return -1
	}
	m.BOS = id("bos_token_id")
	m.FIM = FIMTokens{
		Prefix:    id("fim_pre_token_id", "prefix_token_id"),
		Suffix:    id("fim_suf_token_id", "suffix_token_id"),
		Middle:    id("fim_mid_token_id", "middle_token_id"),
		Repo:      id("fim_rep_token_id"),
		Separator: id("fim_sep_token_id"),
	}
	m.pieces.findFIM(&m.FIM)
	// llama.cpp adds BOS for SentencePiece models unless told otherwise.
	m.AddBOS = meta.flag("tokenizer.ggml.add_bos_token", m.pieces.kind == "llama")
}

// modelHash is what Model.Hash says. dataStart is where the tensors' data begin.
func modelHash(data []byte, dataStart int64) string {
	const samples, sampleBytes = 64, 1 << 20
	h := xxhash.New()
	var size [8]byte
	binary.LittleEndian.PutUint64(size[:], uint64(len(data)))
	_, _ = h.Write(size[:])
	start := min(max(dataStart, 0), int64(len(data)))
	_, _ = h.Write(data[:start])
	rest := data[start:]
	if len(rest) <= samples*sampleBytes {
		_, _ = h.Write(rest)
	} else {
		step := (len(rest) - sampleBytes) / (samples - 1)
		for i := range samples {
			_, _ = h.Write(rest[i*step : i*step+sampleBytes])
		}
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// metadata looks up GGUF keys. A key without a known prefix is one of the
// architecture's.
type metadata struct {
	file *gguf.GGUFFile
	arch string
}

func (m *metadata) get(key string) (gguf.GGUFMetadataKV, bool) {
	if !strings.HasPrefix(key, "general.") && !strings.HasPrefix(key, "tokenizer.") {
		key = m.arch + "." + key
	}
	return m.file.Header.MetadataKV.Get(key)
}

func (m *metadata) has(key string) bool { _, ok := m.get(key); return ok }

func (m *metadata) str(key string) string {
	kv, _ := m.get(key)
	s, _ := kv.Value.(string)
	return s
}

func (m *metadata) flag(key string, missing bool) bool {
	kv, _ := m.get(key)
	if v, ok := kv.Value.(bool); ok {
		return v
	}
	return missing
}

// float reads any number.
func (m *metadata) float(key string, missing float64) float64 {
	kv, _ := m.get(key)
	if v, ok := number(kv.Value); ok {
		return v
	}
	return missing
}

// num reads a whole number; of one for each layer, the largest.
func (m *metadata) num(key string, missing int) int {
	kv, ok := m.get(key)
	if !ok {
		return missing
	}
	if list, ok := kv.Value.(gguf.GGUFMetadataKVArrayValue); ok {
		most := missing
		for i, v := range list.Array {
			if f, ok := number(v); ok && (i == 0 || int(f) > most) {
				most = int(f)
			}
		}
		return most
	}
	if v, ok := number(kv.Value); ok && math.Abs(v) < math.MaxInt32 {
		return int(v)
	}
	return missing
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case uint8:
		return float64(v), true
	case int8:
		return float64(v), true
	case uint16:
		return float64(v), true
	case int16:
		return float64(v), true
	case uint32:
		return float64(v), true
	case int32:
		return float64(v), true
	case uint64:
		return float64(v), true
	case int64:
		return float64(v), true
	case float32:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// array returns the elements of a list, nil where there is none.
func (m *metadata) array(key string) []any {
	kv, _ := m.get(key)
	list, _ := kv.Value.(gguf.GGUFMetadataKVArrayValue)
	return list.Array
}
