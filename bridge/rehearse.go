package bridge

import (
	"context"
	"errors"
	"fmt"
)

// A passage that opened its prompt was computed with nothing before it. A rehearsal
// computes it once more, behind the rest of the prompt, and makes a longer reference of
// both, so that a target in which the passage stands behind others finds it as it is
// there (matcher.Copy).

// rehearsalSlice tokens are computed at a time, so that a request that comes waits for no
// more than those.
const rehearsalSlice = 32

// ErrInterrupted says that a rehearsal was given up, since the backend is wanted for
// something else.
var ErrInterrupted = errors.New("rehearsal interrupted")

// Rehearsal is the work of computing a reference's tokens [From, To) behind its first
// Keep tokens and [To, End).
type Rehearsal struct {
	Ref                 *Reference
	Keep, From, To, End int
	Slot                int // its content is lost
	Threads             int
	// GoOn is asked before every slice.
	GoOn func() bool
}

// Copy is what the longer reference has twice.
func (r *Rehearsal) Copy() Copy { return Copy{From: r.From, Len: r.To - r.From} }

// Tokens is how many the longer reference has.
func (r *Rehearsal) Tokens() int { return len(r.Ref.State.Tokens) + r.To - r.From }

// order is the prompt as it is computed, and where its opening starts in it.
func (r *Rehearsal) order() (tokens []int32, at int) {
	t := r.Ref.State.Tokens
	tokens = append(append(tokens, t[:r.Keep]...), t[r.To:r.End]...)
	return append(tokens, t[r.From:r.To]...), len(tokens)
}

// Rehearse carries out r and writes the longer state to p, which is the caller's to
// commit or abort. After an error the slot's content is unknown: erase it.
func (fl *Filler) Rehearse(ctx context.Context, r Rehearsal, p *Pending) error {
	if err := fl.computeBehind(ctx, &r); err != nil {
		return err
	}
	order, at := r.order()
	saved, err := fl.Store.Scratch(int64(len(order)) * fl.Layout.BytesPerToken())
	if err != nil {
		return err
	}
	defer saved.Release()
	if _, _, err := fl.Backend.Save(ctx, r.Slot, saved.File()); err != nil {
		return err
	}
	s, err := OpenState(saved.Path())
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Layout.Equal(fl.Layout); err != nil {
		return err
	}
	if len(s.Tokens) < len(order) {
		return fmt.Errorf("the backend saved %d tokens after computing %d", len(s.Tokens), len(order))
	}
	return fl.writeLonger(&r, s, at, p.Path())
}

// computeBehind has the slot hold the rest of the prompt and computes the opening behind
// it.
func (fl *Filler) computeBehind(ctx context.Context, r *Rehearsal) error {
	tokens, at := r.order()
	rest := []Run{{Len: int32(r.Keep)}, {Src: int32(r.To), Dst: int32(r.Keep), Len: int32(r.End - r.To), Delta: int32(r.Keep - r.To)}}
	_, err := fl.Fill(ctx, Fill{Slot: r.Slot, Tokens: tokens, Refs: []*Reference{r.Ref}, Threads: r.Threads,
		Stages: []FillStage{{Runs: rest, From: int32(at), To: int32(len(tokens))}}})
	if err != nil {
		return err
	}
	for at < len(tokens) {
		if !r.GoOn() {
			return ErrInterrupted
		}
		upTo := min(at+rehearsalSlice, len(tokens))
		got, err := fl.Backend.Prefill(ctx, r.Slot, tokens[:upTo])
		if err != nil {
			return err
		}
		if got.CacheN != at {
			return fmt.Errorf("%w: it found %d tokens in its cache, %d were there", ErrNotTaken, got.CacheN, at)
		}
		at = upTo
	}
	return nil
}

// writeLonger writes the reference, and behind it the opening that s holds from position
// at on.
func (fl *Filler) writeLonger(r *Rehearsal, s *State, at int, path string) error {
	t, n := r.Ref.State.Tokens, len(r.Ref.State.Tokens)
	g := gather{}
	g.add(r.Ref.State, Run{Len: int32(n)})
	g.add(s, Run{Ref: 1, Src: int32(at), Dst: int32(n), Len: int32(r.To - r.From), Delta: int32(n - at)})
	w, err := CreateState(path, fl.Layout, r.Slot, append(append([]int32{}, t...), t[r.From:r.To]...), g.pos)
	if err != nil {
		return err
	}
	defer w.Close()
	jobs, err := w.Jobs([]*State{r.Ref.State, s})
	if err != nil {
		return err
	}
	return fl.Kernels.Compose(jobs, g.runs, fl.RoPE, r.Threads)
}
