package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
)

// Recipe says how the agent (csrc/agent) makes a prompt's KV inside the server:
// which rows of which references become which cells, and which cells it computes
// anew. The file's layout is described in csrc/agent/recipe.h.
type Recipe struct {
	Tokens []int32
	// Runs are token positions, as in a FillStage. A position that no run covers
	// gets a cell only where Depth says that it is computed in all layers.
	Runs []Run
	// Depth tells for every token in how many layers, counted from the first, its
	// keys and values are computed anew; 0 leaves what the run supplies.
	Depth []uint16
	// Layout is the server's, which states of the references' layouts can become.
	Layout *Layout
	// Refs are what Run.Ref indexes: one and more, in the directory that the recipe
	// is written to.
	Refs []*State
	RoPE *RoPE
	// Extra has the agent choose further tokens by deviation.
	Extra Deviating
	// Retention is the share of the cells that go into the cache; 0 and 1 mean all.
	// Keep, as long as Tokens or nil, names those that must; the others are those that an
	// answer attends to most.
	Retention float64
	Keep      []bool
	// Passage, as long as Tokens or nil, numbers from 1 the passages whose keys and
	// values are all off in the same way; how far is measured at the tokens that
	// Sample names, which are computed in all layers, and taken off the others.
	Passage []uint16
	Sample  []bool
	// Attended is the share of the tokens that Displaced names, as long as Tokens or nil,
	// that is computed in all layers as well: those that an answer attends to most.
	Attended  float64
	Displaced []bool
	// Following are the prompt's tokens after Tokens, of which there must be one where
	// an answer is to be drafted. The server is spared tokenising the prompt that they end.
	Following []int32
}

// Deviating is the share of tokens that are computed because their values in the
// second layer deviate most: of all cells, ShareFirst in the third layer, falling
// exponentially to ShareLast in the last. The zero value computes none.
type Deviating struct {
	ShareFirst, ShareLast float32
	// MinDeviation is the least squared distance of a token's values that is worth
	// it, in units of the mean square of all.
	MinDeviation float32
}

const (
	recipeMagic     = 0x726b7373 // "sskr"
	recipeVersion   = 7
	recipeNEOX      = 1
	recipeVTrans    = 2
	recipePacked    = 4
	recipeNameBytes = 248
	recipeMaxRefs   = 64
	recipeKeep      = 1 << 15
	recipeSample    = 1 << 14
	recipeDisplaced = 1 << 13
)

// DraftTokens is how many tokens of an answer are drafted, to see what it attends to.
// On orders of the tuning documents that Qwen2.5-0.5B had computed whole, 58 % of the
// cells kept: .135 nats by the prompt's last 32 tokens, .028 by 4 of the answer, .003
// by 8. Which displaced ones are worth computing, more tell better: of 3 % chosen in 15
// such orders, .036 by 4, .031 by 8, .024 by 16.
const DraftTokens = 12

// recipeHead is struct recipe_head.
type recipeHead struct {
	Magic, Version                           uint32
	Size, Checksum                           uint64
	Tokens, Cells, Runs, Refs, Layers, Flags uint32
	HeadDim, Dims                            uint32
	First, Last, MinDeviation                float32
	Base, Scale, ExtFactor, AttnFactor       float32
	BetaFast, BetaSlow                       float32
	OrigCtx                                  uint32
	Retention                                float32
	Attended                                 float32
	Following, Drafted                       uint32
	Whole                                    uint64
	WholeTokens                              uint32
	StateVersion, Streams                    uint16
}

type recipeRef struct {
	Size uint64
	Name [recipeNameBytes]byte
}

// encode returns the recipe as its file holds it. Errors name what the agent would refuse.
func (r *Recipe) encode() ([]byte, error) {
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("recipe: %w", err)
	}
	runs, pos := r.cells()
	if len(pos) == 0 || int(pos[len(pos)-1]) != len(r.Tokens)-1 {
		return nil, fmt.Errorf("recipe: the last of %d tokens would have no cell: the server could not go on behind it", len(r.Tokens))
	}
	h := r.head(len(runs), len(pos))
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(h)
	if err := r.putRefs(put); err != nil {
		return nil, err
	}
	put(r.types())
	put(r.Tokens)
	if r.drafts() {
		put(r.Following)
	}
	put(pos)
	put(r.depths(pos))
	put(r.passages(pos))
	put(cRuns(runs))
	put(r.RoPE.Freqs)
	out := b.Bytes()
	binary.LittleEndian.PutUint64(out[8:], uint64(len(out)))
	binary.LittleEndian.PutUint64(out[16:], xxhash.Sum64(out[24:]))
	return out, nil
}

// WriteFile writes the recipe to a file of mode 0600.
func (r *Recipe) WriteFile(path string) error {
	data, err := r.encode()
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

func (r *Recipe) validate() error {
	switch {
	case len(r.Tokens) == 0 || len(r.Depth) != len(r.Tokens):
		return fmt.Errorf("%d tokens and %d depths: expected as many, and some", len(r.Tokens), len(r.Depth))
	case len(r.Refs) == 0 || len(r.Refs) > recipeMaxRefs:
		return fmt.Errorf("%d references: expected 1 to %d", len(r.Refs), recipeMaxRefs)
	case r.Keep != nil && len(r.Keep) != len(r.Tokens):
		return fmt.Errorf("%d tokens, and %d to keep or not: expected as many", len(r.Tokens), len(r.Keep))
	case (r.Passage == nil) != (r.Sample == nil) || r.Passage != nil && (len(r.Passage) != len(r.Tokens) || len(r.Sample) != len(r.Tokens)):
		return fmt.Errorf("%d tokens, %d passages, %d samples: expected as many, or neither of the latter", len(r.Tokens), len(r.Passage), len(r.Sample))
	case r.Displaced != nil && len(r.Displaced) != len(r.Tokens):
		return fmt.Errorf("%d tokens, and %d displaced or not: expected as many", len(r.Tokens), len(r.Displaced))
	case !(r.Attended >= 0 && r.Attended <= 1):
		return fmt.Errorf("share of attended tokens %v: expected 0 to 1", r.Attended)
	case !(r.Retention >= 0 && r.Retention <= 1):
		return fmt.Errorf("retention %v: expected 0 to 1", r.Retention)
	case r.drafts() && len(r.Following) == 0:
		return fmt.Errorf("retention %v, share of attended tokens %v, and no token that follows: expected one, to draft an answer from", r.Retention, r.Attended)
	case r.Layout == nil:
		return errors.New("the server's layout is not known")
	case r.RoPE == nil:
		return errors.New("the model's RoPE is not known")
	}
	for _, s := range r.Refs {
		if err := r.Layout.Takes(&s.Layout); err != nil {
			return fmt.Errorf("reference %s: %w", filepath.Base(s.Path), err)
		}
	}
	for i, d := range r.Depth {
		if int(d) > r.layers() {
			return fmt.Errorf("token %d is to be computed in %d of %d layers", i, d, r.layers())
		}
	}
	for i, run := range r.Runs {
		if run.Ref < 0 || run.Ref >= len(r.Refs) || run.Dst < 0 || run.Len <= 0 || int(run.Dst+run.Len) > len(r.Tokens) {
			return fmt.Errorf("run %d %+v leaves the %d references or the %d tokens", i, run, len(r.Refs), len(r.Tokens))
		}
	}
	return nil
}

func (r *Recipe) layers() int { return len(r.Layout.Layers) }

// types are those of the server's keys and values, layer by layer.
func (r *Recipe) types() []uint32 {
	var out []uint32
	for i := range r.Layout.Layers {
		out = append(out, uint32(r.Layout.Layers[i].KType), uint32(r.Layout.Layers[i].VType))
	}
	return out
}

// cells returns the runs as rows of references and cells, and the position of each
// cell. A position whose reference has no cell for it gets one only if it is computed.
func (r *Recipe) cells() (runs []Run, pos []int32) {
	sources := make([]Run, len(r.Tokens)) // of a single row, or of none
	for _, run := range r.Runs {
		for i := range run.Len {
			if row, ok := r.Refs[run.Ref].Row(run.Src + i); ok {
				sources[run.Dst+i] = Run{Ref: run.Ref, Src: int32(row), Len: 1, Delta: run.Delta}
			}
		}
	}
	for p, s := range sources {
		if s.Len == 0 && int(r.Depth[p]) < r.layers() {
			continue
		}
		s.Dst = int32(len(pos))
		pos = append(pos, int32(p))
		if s.Len > 0 {
			runs = AppendRun(runs, s)
		}
	}
	return runs, pos
}

func (r *Recipe) head(runs, cells int) recipeHead {
	h := recipeHead{
		Magic: recipeMagic, Version: recipeVersion,
		Tokens: uint32(len(r.Tokens)), Cells: uint32(cells), Runs: uint32(runs), Refs: uint32(len(r.Refs)), Layers: uint32(r.layers()),
		HeadDim: uint32(r.RoPE.HeadDim), Dims: uint32(r.RoPE.Dims),
		First: r.Extra.ShareFirst, Last: r.Extra.ShareLast, MinDeviation: r.Extra.MinDeviation,
	}
	if r.RoPE.NEOX {
		h.Flags |= recipeNEOX
	}
	if r.Layout.VTrans {
		h.Flags |= recipeVTrans
	}
	if r.Layout.Packed {
		h.Flags |= recipePacked
	}
	h.StateVersion, h.Streams = uint16(r.Layout.Version), uint16(r.Layout.Streams)
	h.Retention, h.Attended = 1, float32(r.Attended)
	if r.thins() {
		h.Retention = float32(r.Retention)
	}
	if r.drafts() {
		h.Following, h.Drafted = uint32(len(r.Following)), DraftTokens
	}
	h.Whole, h.WholeTokens = r.whole()
	p := r.RoPE.Params
	h.Base, h.Scale, h.AttnFactor = float32(p.Base), float32(p.scale()), 1
	if y := p.YaRN; y != nil {
		h.ExtFactor, h.BetaFast, h.BetaSlow, h.OrigCtx = float32(y.ExtFactor), float32(y.BetaFast), float32(y.BetaSlow), uint32(y.OrigCtx)
	}
	return h
}

// whole is by what the agent knows the prompt: the xxHash64 of all tokens, and their number.
func (r *Recipe) whole() (sum uint64, n uint32) {
	h := xxhash.New()
	for _, tokens := range [][]int32{r.Tokens, r.Following} {
		_ = binary.Write(h, binary.LittleEndian, tokens)
	}
	return h.Sum64(), uint32(len(r.Tokens) + len(r.Following))
}

func (r *Recipe) putRefs(put func(any)) error {
	for _, s := range r.Refs {
		ref := recipeRef{Size: uint64(s.Size)}
		name := filepath.Base(s.Path)
		if len(name) >= len(ref.Name) {
			return fmt.Errorf("recipe: the name %s is longer than %d bytes", name, len(ref.Name)-1)
		}
		copy(ref.Name[:], name)
		put(ref)
	}
	return nil
}

func (r *Recipe) thins() bool { return r.Retention > 0 && r.Retention < 1 }

func (r *Recipe) drafts() bool { return r.thins() || r.Attended > 0 }

// depths are those of the cells, with their marks, padded to four bytes.
func (r *Recipe) depths(pos []int32) []uint16 {
	out := make([]uint16, (len(pos)+1)/2*2)
	for i, p := range pos {
		out[i] = r.Depth[p]
		if r.Keep != nil && r.Keep[p] {
			out[i] |= recipeKeep
		}
		if r.Sample != nil && r.Sample[p] {
			out[i] |= recipeSample
		}
		if r.Displaced != nil && r.Displaced[p] {
			out[i] |= recipeDisplaced
		}
	}
	return out
}

// passages are those of the cells, padded to four bytes.
func (r *Recipe) passages(pos []int32) []uint16 {
	out := make([]uint16, (len(pos)+1)/2*2)
	if r.Passage != nil {
		for i, p := range pos {
			out[i] = r.Passage[p]
		}
	}
	return out
}
