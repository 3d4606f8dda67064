package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// AgentReply is what the agent says of a recipe that it carried out or refused.
type AgentReply struct {
	Version int    `json:"agent"`
	Arch    string `json:"arch"`
	Layers  int    `json:"layers"`
	// Cells is how many cells the state has; Keys counts those whose keys and
	// values were computed, added up over the layers, and Through those that went
	// through a whole layer.
	Cells   int   `json:"cells"`
	Keys    int64 `json:"keys"`
	Through int64 `json:"through"`
	// Drafted are an answer's first tokens, by which the cells were chosen.
	Drafted []int32 `json:"drafted"`
	// Cache says where the rows were made: in the server's cache in "host" memory or in
	// that of a "cuda" device, or "aside", to be restored from there, and Aside why.
	Cache string `json:"cache"`
	Aside string `json:"aside"`
	// Brought counts the references that had to be brought to the device from their files,
	// since the server had not saved them lately.
	Brought int `json:"brought"`
	// Spared counts, since the server began, the prompts that it did not have to tokenise a
	// second time when the request followed its recipe.
	Spared int64 `json:"spared"`
	// Kernels are those that computed: "ggml", or the instruction set of the agent's own.
	Kernels string `json:"kernels"`
	// Milliseconds.
	Compose   float64 `json:"compose_ms"`
	Recompute float64 `json:"recompute_ms"`
	Restore   float64 `json:"restore_ms"`
	Error     string  `json:"error"`
	// NoCells: the error is that the server's cache has no free cells for the prompt.
	NoCells bool `json:"no_cells"`
}

// ErrNoAgent says that the server treats recipes as the corrupt files that they
// are to a server without the agent.
var ErrNoAgent = errors.New("no agent in the server: start llama-server with LD_PRELOAD=libsemshare-agent.so to have tokens recomputed inside it")

// ErrLost says that the server broke off while the agent was at work in it, as it does
// where the agent ends it.
var ErrLost = errors.New("the backend was lost while the agent carried out a recipe")

// Cook has the agent carry out a recipe into a slot. After an error other than ErrUnsent
// the slot's content is unknown: erase it.
func (fl *Filler) Cook(ctx context.Context, slot int, r *Recipe) (Filled, AgentReply, error) {
	start := time.Now()
	path := filepath.Join(fl.Store.dir, recipeName(fl.Store.run.id, fl.Store.recipes.Add(1)))
	defer os.Remove(path)
	if err := r.WriteFile(path); err != nil {
		return Filled{}, AgentReply{}, fmt.Errorf("%w: cannot write the recipe: %w", ErrUnsent, err)
	}
	written := time.Since(start)
	if err := fl.emptyDraft(ctx, slot); err != nil {
		return Filled{}, AgentReply{}, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	reply, err := fl.Backend.Cook(ctx, slot, fl.Store.dir, filepath.Base(path), len(r.Tokens))
	if err != nil {
		return Filled{}, reply, err
	}
	compose := written + time.Duration(reply.Compose*float64(time.Millisecond))
	return Filled{Tokens: len(r.Tokens), Cells: reply.Cells, Compose: compose, Inject: time.Since(start) - compose}, reply, nil
}

// agentTokens is the length of the prompt by which the agent is tried out.
const agentTokens = 64

// Agent finds out whether the backend has an agent that computes what the backend
// itself does: a prompt is prefilled and saved, the agent computes all of it anew,
// and the two caches are compared. probed is what Probe found, and learns what the agent
// takes: of a fast backend more closely. It uses the slot and empties it.
func (p Prober) Agent(ctx context.Context, probed *Probed) (AgentReply, error) {
	if probed.RoPE == nil {
		return AgentReply{}, errors.New(probed.Why)
	}
	if n := probed.Props.Adapters; n > 0 {
		return AgentReply{}, fmt.Errorf("the server has %d LoRA adapters, and the agent computes without", n)
	}
	defer p.clear(ctx, p.Slot)
	files, remove, err := p.files(3)
	if err != nil {
		return AgentReply{}, err
	}
	defer remove()
	tokens := p.varied()
	if _, err := p.fill(ctx, files[0], tokens); err != nil {
		return AgentReply{}, err
	}
	want, err := OpenState(files[0])
	if err != nil {
		return AgentReply{}, err
	}
	defer want.Close()
	if taken(want, tokens) {
		return AgentReply{}, ErrTaken
	}
	reply, err := p.cook(ctx, files[1], everything(want, probed.RoPE))
	if err != nil {
		return reply, err
	}
	if _, _, err := p.Backend.Save(ctx, p.Slot, filepath.Base(files[2])); err != nil {
		return reply, err
	}
	if err := p.compare(files[2], want, probed.RoPE); err != nil {
		return reply, err
	}
	probed.AgentTook = AgentReading{Computed: len(tokens), Recompute: reply.Recompute}
	if probed.Fast() {
		probed.AgentTook, err = p.timeAgent(ctx, probed.RoPE, files[2], files[1])
	}
	return reply, err
}

// varied is a prompt of different tokens, all plain.
func (p Prober) varied() []int32 {
	tokens := p.repeated(0, agentTokens)
	vary(tokens)
	return tokens
}

// everything is the recipe that computes all of a state anew.
func everything(s *State, rope *RoPE) *Recipe {
	r := &Recipe{Tokens: s.Tokens, Depth: make([]uint16, len(s.Tokens)), Layout: &s.Layout, Refs: []*State{s}, RoPE: rope}
	for i := range r.Depth {
		r.Depth[i] = uint16(len(s.Layout.Layers))
	}
	return r
}

func (p Prober) cook(ctx context.Context, path string, r *Recipe) (AgentReply, error) {
	if err := r.WriteFile(path); err != nil {
		return AgentReply{}, fmt.Errorf("%w: cannot write the recipe: %w", ErrUnsent, err)
	}
	return p.Backend.Cook(ctx, p.Slot, p.Dir, filepath.Base(path), len(r.Tokens))
}

// maxOff is the greatest relative deviation of the agent's keys or values from the server's
// own: four-bit ones are off by some 8 % each.
const maxOff = 0.2

// compare opens what the agent made and returns an error where it is off from the
// server's own in any layer, or in any pair of the first layer's keys, to which all that
// happens is RoPE.
func (p Prober) compare(path string, want *State, rope *RoPE) error {
	got, err := OpenState(path)
	if err != nil {
		return err
	}
	defer got.Close()
	if taken(got, want.Tokens) {
		return ErrTaken
	}
	if err := got.Layout.Equal(&want.Layout); err != nil {
		return err
	}
	if got.Cells() != want.Cells() {
		return fmt.Errorf("the agent made %d cells: expected %d", got.Cells(), want.Cells())
	}
	n := int32(want.Cells())
	turns, err := compareTurns(p.Kernels, rope, stretch{want, 0, n}, stretch{got, 0, n})
	if err != nil {
		return err
	}
	if turns.other() {
		return fmt.Errorf("the agent's keys of the first layer are off from the server's own in %d of %d pairs: does the server use adapters or settings (--rope-..., --yarn-...) that the model file does not have?", turns.off(), len(turns.pairs))
	}
	for i := range want.Layout.Layers {
		keys, values, err := p.off(got, want, i)
		if err != nil {
			return err
		}
		if !(max(keys, values) <= maxOff) {
			return fmt.Errorf("the agent's keys of layer %d are off by %.0f %% from the server's own, its values by %.0f %%: does the server use adapters or settings that the model file does not have?", i, 100*keys, 100*values)
		}
	}
	return nil
}

// off is how far a layer's keys and values are from those wanted, as relativeError.
func (p Prober) off(got, want *State, layer int) (keys, values float64, err error) {
	gotK, gotV, err := p.byPosition(got, layer)
	if err != nil {
		return 0, 0, err
	}
	wantK, wantV, err := p.byPosition(want, layer)
	if err != nil {
		return 0, 0, err
	}
	return relativeError(gotK, wantK), relativeError(gotV, wantV), nil
}

// byPosition returns a layer's keys and values, cell by cell in the order of the positions, of
// which all from 0 on must have one.
func (p Prober) byPosition(s *State, layer int) (keys, values []float32, err error) {
	src := s.Layer(layer)
	if keys, err = floats(p.Kernels, src.KType, src.K); err != nil {
		return nil, nil, err
	}
	if values, err = floats(p.Kernels, src.VType, src.V); err != nil {
		return nil, nil, err
	}
	if keys, err = inOrder(s, keys, false); err != nil {
		return nil, nil, err
	}
	values, err = inOrder(s, values, src.VTrans)
	return keys, values, err
}

// inOrder returns x, elements of the cells of s in rows or columns, cell by cell in the
// order of the positions.
func inOrder(s *State, x []float32, columns bool) ([]float32, error) {
	n := s.Cells()
	width := len(x) / n
	out := make([]float32, 0, len(x))
	for pos := range n {
		row, ok := s.Row(int32(pos))
		if !ok {
			return nil, fmt.Errorf("position %d has no cell", pos)
		}
		if !columns {
			out = append(out, x[row*width:(row+1)*width]...)
			continue
		}
		for e := range width {
			out = append(out, x[e*n+row])
		}
	}
	return out, nil
}

// Cook has the server carry out the recipe file of that name in dir, into a slot.
// After an error other than ErrUnsent the slot's content is unknown: erase it.
func (b *Backend) Cook(ctx context.Context, slot int, dir, file string, tokens int) (AgentReply, error) {
	path := filepath.Join(dir, file+".reply")
	defer os.Remove(path)
	if err := makeReply(path); err != nil {
		return AgentReply{}, fmt.Errorf("%w: cannot make the file for the agent's reply: %w", ErrUnsent, err)
	}
	// A recipe that ends the server would end it a second time.
	n, err := b.Once().Restore(ctx, slot, file)
	reply, replied := readReply(path)
	switch {
	case replied && reply.NoCells:
		return reply, fmt.Errorf("%w: the agent could not carry out the recipe: %s", ErrNoCells, reply.Error)
	case replied && reply.Error != "":
		return reply, fmt.Errorf("the agent could not carry out the recipe: %s", reply.Error)
	case err != nil && !replied:
		return reply, unheard(ctx, err)
	case err != nil:
		return reply, err
	case n != tokens:
		return reply, fmt.Errorf("%w: the agent restored %d tokens, the recipe has %d", ErrNotTaken, n, tokens)
	}
	return reply, nil
}

// makeReply makes the empty file that the agent writes its reply to, anew. It is made here,
// since what the server's user makes this one may not be able to read.
func makeReply(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// unheard is what it means that a recipe's restore ended in err and no agent replied. That
// there are no cells a server without the agent says of any file that it cannot read.
func unheard(ctx context.Context, err error) error {
	var answer *BackendError
	var network *net.OpError
	switch {
	case errors.As(err, &answer):
		return fmt.Errorf("%w (%w)", ErrNoAgent, answer)
	case ctx.Err() != nil:
		return err
	case errors.As(err, &network) && network.Op == "dial":
		return fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

// readReply reads a reply. Where no agent wrote there is none.
func readReply(path string) (AgentReply, bool) {
	var r AgentReply
	data, err := os.ReadFile(path)
	return r, err == nil && json.Unmarshal(data, &r) == nil
}
