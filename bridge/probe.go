package bridge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Probed is what trying out the backend brought to light.
type Probed struct {
	Props  Props
	Layout Layout
	// Key stands for everything that two states must have in common to be mixed: model
	// file, types of cells, adapters, and how keys turn where not as the model file says.
	// How the server lays out its files and slots is no part of it.
	Key string
	// RoPE is nil where keys cannot be moved; Why then says why.
	RoPE *RoPE
	Why  string
	// NotFar says why keys were compared over a short way only, "" where over a long one too,
	// or as long as there is room for.
	NotFar string
	turns  string // how keys turn, "" where as the model file says
	// Witness tells the model's weights from others; nil where the cache's types cannot be
	// read.
	Witness Witness
	// Volatile: a slot filled a moment ago is emptied as soon as another request
	// starts (--cache-idle-slots with --kv-unified).
	Volatile bool
	// Readings are prefills that were timed: the long and short ones of a fast
	// backend, or of a slow one the probe's own prompt alone.
	Readings []Reading
	// AgentTook is how long the agent took, where Agent found one.
	AgentTook AgentReading
}

// ErrUnshareable is wrapped where a backend works but its KV cannot be shared.
var ErrUnshareable = errors.New("cannot be shared")

// ErrTaken says that the probe came to nothing because of others' requests, which tells
// nothing of the backend.
var ErrTaken = errors.New("the slot was used by another request while the backend was tried out in it")

// The probe's prompt is probeTokens long: alikeTokens times the same, so that the first
// layer's keys differ by their rotation alone, and others behind them, on which the weights
// show (Witness).
const (
	probeTokens = 96
	alikeTokens = 80
)

// Prober tries out a backend before anything is shared through it.
type Prober struct {
	Backend *Backend
	// Props is what the backend says of itself.
	Props Props
	// Dir is the server's slot directory as seen from here.
	Dir     string
	Model   *Model // nil where no GGUF can be read
	Kernels *Kernels
	// Slot is that in which it is tried out: the less it holds, the less is lost.
	Slot int
	// Run names the files; one of its own where it is "". Where the server saves to another
	// directory they stay there, and are overwritten by those of the same name alone.
	Run string
}

// Probe prefills, saves and restores a short prompt, and checks on it all that
// sharing relies on: that the state's layout is understood, that keys turn as the
// model's RoPE says, that a restored state is really used, and whether it
// survives another request. A fast backend is then timed with prompts that tell more.
// It uses the slot and another one, and empties them.
func (p Prober) Probe(ctx context.Context) (out *Probed, err error) {
	if err := p.refuse(); err != nil {
		return nil, err
	}
	files, remove, err := p.files(3)
	if err != nil {
		return nil, err
	}
	defer remove()
	file := files[0]
	defer func() {
		if !errors.Is(err, ErrTaken) { // what is in it is another's
			p.clear(ctx, p.Slot)
		}
	}()
	out = &Probed{Props: p.Props}
	tokens := p.prompt()
	first, err := p.fill(ctx, file, tokens)
	if err != nil {
		return nil, err
	}
	if err := p.inspect(ctx, out, files, tokens); err != nil {
		return nil, err
	}
	single, err := p.restore(ctx, file, tokens)
	if err != nil {
		return nil, err
	}
	if p.Props.Slots > 1 {
		if out.Volatile, err = p.volatile(ctx, file, tokens); err != nil {
			return nil, err
		}
	}
	if out.Readings, err = p.readings(ctx, first, single); err != nil {
		return nil, err
	}
	return out, nil
}

// clearTimeout bounds the emptying of a slot when all else is over. The server puts it off
// while the slot is at work, and the sidecar may be waiting to end.
const clearTimeout = 2 * time.Second

// clear empties a slot, even if ctx has ended. If it fails, the next request merely finds a
// foreign prefix.
func (p Prober) clear(ctx context.Context, slot int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTimeout)
	defer cancel()
	_ = p.Backend.Erase(ctx, slot)
}

// files makes n files that the server will save to, and so finds out whether the slot
// directory can be written. remove deletes them. They are of a run of their own: what a
// kill leaves of them, or the server saves too late, goes when a store is opened there.
func (p Prober) files(n int) (paths []string, remove func(), err error) {
	run, err := newRun(p.Dir, p.Run)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot write to the slot directory %s: %w", p.Dir, err)
	}
	remove = func() {
		for _, path := range paths {
			_ = os.Remove(path)
		}
		_ = run.release()
	}
	for i := range n {
		path := filepath.Join(p.Dir, probeName(run.id, i))
		paths = append(paths, path)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			remove()
			return nil, nil, fmt.Errorf("cannot write to the slot directory %s: %w", p.Dir, err)
		}
	}
	return paths, remove, nil
}

// refuse names what is known to be unshareable before anything is tried.
func (p Prober) refuse() error {
	if p.Model != nil && p.Model.Unshareable != "" {
		return fmt.Errorf("model %s %w: %s", p.Model.Name, ErrUnshareable, p.Model.Unshareable)
	}
	return nil
}

// prompt is the one by which the backend is tried out.
func (p Prober) prompt() []int32 {
	tokens := p.repeated(0, probeTokens)
	vary(tokens[alikeTokens:])
	return tokens
}

// vary makes different tokens of one that is repeated, all plain.
func vary(tokens []int32) {
	id := tokens[0]
	for i := range tokens {
		tokens[i] = id - int32((i+1)*(i+1))%(id/2+1)
	}
}

// repeated is a token n times: the k-th of some that are surely in the vocabulary and
// surely plain, since ids at the middle of the table are ordinary pieces of text.
func (p Prober) repeated(k, n int) []int32 {
	id := int32(1000)
	if p.Model != nil && p.Model.Vocab > 0 {
		id = int32(p.Model.Vocab / 2)
	}
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = id - int32(k)
	}
	return tokens
}

// fill computes and saves tokens, and returns what computing them took.
func (p Prober) fill(ctx context.Context, file string, tokens []int32) (Reading, error) {
	if err := p.Backend.Erase(ctx, p.Slot); err != nil {
		return Reading{}, fmt.Errorf("the backend's slots cannot be managed: start llama-server with --slot-save-path and without --no-slots: %w", err)
	}
	got, err := p.Backend.Prefill(ctx, p.Slot, tokens)
	if err != nil {
		return Reading{}, err
	}
	saved, _, err := p.Backend.Save(ctx, p.Slot, filepath.Base(file))
	if err != nil {
		return Reading{}, fmt.Errorf("the backend cannot save a slot: start llama-server with --slot-save-path, as the sidecar's user or one who can write its files: %w", err)
	}
	if saved == 0 {
		return Reading{}, ErrTaken
	}
	return got.reading(), nil
}

// inspect reads the saved state, the first of the files, and checks the model's RoPE against
// it.
func (p Prober) inspect(ctx context.Context, out *Probed, files []string, tokens []int32) error {
	file := files[0]
	s, err := OpenState(file)
	if errors.Is(err, ErrUnsupported) {
		return fmt.Errorf("the backend's state %w: %w", ErrUnshareable, err)
	}
	if err != nil {
		return fmt.Errorf("cannot read what the backend saved as %s: is --slot-dir the directory given to it as --slot-save-path, and are both the same user? %w", filepath.Base(file), err)
	}
	defer s.Close()
	if taken(s, tokens) {
		return ErrTaken
	}
	if len(s.Tokens) != len(tokens) || len(s.Pos) != len(tokens) {
		return fmt.Errorf("the backend saved %d tokens in %d cells, %d were computed: %w", len(s.Tokens), len(s.Pos), len(tokens), ErrUnshareable)
	}
	out.Layout = s.Layout
	if err := p.turn(ctx, out, s, files[1:]); err != nil {
		return err
	}
	out.Key = p.key(out)
	out.Witness = p.witness(s)
	return nil
}

// taken reports whether the saved state is of another's prompt: it holds other tokens than
// the beginning of these.
func taken(s *State, tokens []int32) bool {
	n := len(s.Tokens)
	return n > len(tokens) || !slices.Equal(s.Tokens, tokens[:n])
}

// key digests what states that are mixed must have in common.
func (p Prober) key(out *Probed) string {
	h := xxhash.New()
	if p.Model != nil {
		fmt.Fprintln(h, "model", p.Model.Hash)
	} else {
		fmt.Fprintln(h, "path", out.Props.ModelPath, out.Props.Template)
	}
	fmt.Fprintln(h, "lora", out.Props.LoRA)
	fmt.Fprintf(h, "layout %+v\n", out.Layout.ofRows())
	if out.turns != "" {
		fmt.Fprintln(h, "turns", out.turns)
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

func floats(k *Kernels, t KVType, row []byte) ([]float32, error) {
	elems, size := t.BlockSize()
	out := make([]float32, len(row)/size*elems)
	return out, k.Dequantize(t, row, out)
}

// relativeError is |a-b| / |b| in the Euclidean norm.
func relativeError(a, b []float32) float64 {
	var d, n float64
	for i := range b {
		x := float64(a[i]) - float64(b[i])
		d += x * x
		n += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / n)
}

// restore proves that a restored state is used: the server must find all of it. It
// returns what the one token behind it took.
func (p Prober) restore(ctx context.Context, file string, tokens []int32) (Reading, error) {
	got, err := p.found(ctx, file, tokens, func() error { return nil })
	if err != nil {
		return Reading{}, err
	}
	if got.CacheN != len(tokens) {
		return Reading{}, fmt.Errorf("the backend computes restored tokens again (%d of %d found; it must not be started with --no-cache-prompt): %w", got.CacheN, len(tokens), ErrUnshareable)
	}
	return got.reading(), nil
}

// volatile finds out whether a request to another slot empties this one.
func (p Prober) volatile(ctx context.Context, file string, tokens []int32) (bool, error) {
	other, ok, _ := p.Backend.Idle(ctx, p.Slot)
	if !ok {
		other = (p.Slot + 1) % p.Props.Slots
	}
	defer p.clear(ctx, other)
	got, err := p.found(ctx, file, tokens, func() error {
		_, err := p.Backend.Prefill(ctx, other, tokens[:2])
		return err
	})
	return got.CacheN != len(tokens), err
}

// foundTries is the number of tries, in a row, in which the server must have found less than
// was restored before that is believed: another request may have taken the slot and left it.
const foundTries = 2

// found restores the prompt, has something be done, and computes a token behind it.
func (p Prober) found(ctx context.Context, file string, tokens []int32, do func() error) (got Prefilled, err error) {
	for range foundTries {
		if got, err = p.foundOnce(ctx, file, tokens, do); err != nil || got.CacheN == len(tokens) {
			return got, err
		}
	}
	return got, nil
}

func (p Prober) foundOnce(ctx context.Context, file string, tokens []int32, do func() error) (Prefilled, error) {
	if err := p.Backend.Erase(ctx, p.Slot); err != nil {
		return Prefilled{}, err
	}
	if _, err := p.Backend.Restore(ctx, p.Slot, filepath.Base(file)); err != nil {
		return Prefilled{}, err
	}
	if err := do(); err != nil {
		return Prefilled{}, err
	}
	if err := p.untaken(ctx, len(tokens)); err != nil {
		return Prefilled{}, err
	}
	return p.Backend.Prefill(ctx, p.Slot, append(tokens[:len(tokens):len(tokens)], tokens[0]))
}

// only reports whether the slot holds n tokens, or was emptied, and nobody is using it.
func (s slotNow) only(n int) bool { return !s.busy && (s.held == n || s.held == 0) }

// untaken returns ErrTaken where /slots shows another in the slot than what was restored, n
// tokens. Where it does not tell, what is found has to do.
func (p Prober) untaken(ctx context.Context, n int) error {
	all, err := p.Backend.slots(ctx)
	if err == nil && p.Slot < len(all) && !all[p.Slot].only(n) {
		return ErrTaken
	}
	return nil
}
