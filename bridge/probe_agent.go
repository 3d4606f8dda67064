package bridge

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

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
	return p.Backend.Cook(ctx, p.Slot, path, len(r.Tokens))
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

// off returns the relative errors of a layer's keys and values.
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

// inOrder returns the elements x of the cells of s, which lie in rows or columns, cell by cell
// in the order of the positions.
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
