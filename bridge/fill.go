package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// FillStage is one step of filling a slot: positions up to From are composed
// from references, then the server itself computes [From, To).
type FillStage struct {
	// Runs supply the positions between the end of the stage before and From;
	// Src and Dst are token positions, Ref indexes the references of the fill.
	// Positions that no run covers get no cell.
	Runs     []Run
	From, To int32
}

// Fill is the work of putting a prompt's KV into a slot.
type Fill struct {
	Slot   int
	Tokens []int32
	// Stages cover the prompt in order. The last one's [From, To) is left to the
	// request that is forwarded.
	Stages  []FillStage
	Refs    []*Reference
	Threads int
	// SaveWithin bounds the saving between two stages, which waits for the batch that the
	// server is at.
	SaveWithin time.Duration
}

// Filled says what a fill did and cost.
type Filled struct {
	Tokens, Cells   int           // positions and cells in the slot
	Compose, Inject time.Duration // writing states or a recipe; restoring, computing in the middle and saving
	Steps           []FilledStep  // one a stage, in order
}

// FilledStep is what one stage took.
type FilledStep struct {
	At      int           // position at which it was restored
	Took    time.Duration // composing, restoring and, but for the last, computing and saving
	Prefill Prefilled     // zero in the last
}

// ErrNotTaken says that the server did not use a state that it claimed to have restored, as
// its cache_n shows.
var ErrNotTaken = errors.New("the backend did not take the restored state")

// ErrUnsent says that a fill failed before the backend was asked to restore anything: the
// slot holds what it held, or nothing.
var ErrUnsent = errors.New("the backend was not asked to restore anything")

// Filler fills slots through a stock server: it composes a state, has the server
// restore it, and where tokens in the middle are to be computed lets the server
// compute them behind it, saves, and goes on from there (staged filling).
type Filler struct {
	Backend *Backend
	Kernels *Kernels
	Store   *Store
	Layout  *Layout
	RoPE    *RoPE // nil: keys cannot be moved
	// Speculates: the server may have a draft model, whose cache a restore leaves as it is.
	Speculates bool
}

// emptyDraft empties a slot that is to be restored into, where the server may have a draft
// model. What is computed behind the restored tokens goes through both models; a draft's cache
// that ends elsewhere, and is not empty, fails the batch, other slots' tokens included.
func (fl *Filler) emptyDraft(ctx context.Context, slot int) error {
	if !fl.Speculates {
		return nil // a call waits for the batch that the server is at
	}
	return fl.Backend.Erase(ctx, slot)
}

// Fill carries out f. After an error other than ErrUnsent the slot's content is unknown:
// erase it.
func (fl *Filler) Fill(ctx context.Context, f Fill) (Filled, error) {
	p := progress{fl: fl, f: f}
	defer p.close()
	if err := p.files(); err != nil {
		return p.done, fmt.Errorf("%w: %w", ErrUnsent, err)
	}
	for i, st := range f.Stages {
		start := time.Now()
		step := FilledStep{At: int(st.From)}
		if err := p.compose(st); err != nil {
			err = fmt.Errorf("composing up to token %d: %w", st.From, err)
			if i == 0 {
				err = fmt.Errorf("%w: %w", ErrUnsent, err)
			}
			return p.done, err
		}
		if err := p.restore(ctx, int(st.From)); err != nil {
			return p.done, err
		}
		if i < len(f.Stages)-1 {
			var err error
			if step.Prefill, err = p.stage(ctx, st); err != nil {
				return p.done, fmt.Errorf("computing tokens %d to %d: %w", st.From, st.To, err)
			}
		}
		step.Took = time.Since(start)
		p.done.Steps = append(p.done.Steps, step)
	}
	return p.done, nil
}

// progress is a fill under way: saved is what the server computed and composed
// so far, as the slot holds it.
type progress struct {
	fl       *Filler
	f        Fill
	saved    *State
	upTo     int32        // how many positions saved holds
	composed *ScratchFile // what the server restores
	savedIn  *ScratchFile // where it saves; nil where there is one stage
	done     Filled
}

func (p *progress) close() {
	p.forgetSaved()
	for _, f := range []*ScratchFile{p.composed, p.savedIn} {
		if f != nil {
			f.Release()
		}
	}
}

// compose writes the state of positions [0, st.From): what was saved after the
// stage before, and the stage's runs behind it.
func (p *progress) compose(st FillStage) error {
	start := time.Now()
	defer func() { p.done.Compose += time.Since(start) }()
	if st.From == 0 {
		return nil
	}
	runs, pos, err := p.rows(st)
	if err != nil {
		return err
	}
	w, err := p.composed.Create(p.fl.Layout, p.f.Slot, p.f.Tokens[:st.From], pos)
	if err != nil {
		return err
	}
	defer w.Close()
	jobs, err := w.Jobs(p.sources())
	if err != nil {
		return err
	}
	if err := p.fl.Kernels.Compose(jobs, runs, p.fl.RoPE, p.f.Threads); err != nil {
		return err
	}
	p.done.Tokens, p.done.Cells = int(st.From), len(pos)
	return nil
}

// sources are the references and, behind them, the saved state.
func (p *progress) sources() []*State {
	var out []*State
	for _, r := range p.f.Refs {
		out = append(out, r.State)
	}
	if p.saved != nil {
		out = append(out, p.saved)
	}
	return out
}

// rows turns positions into rows of the sources and of the new state.
func (p *progress) rows(st FillStage) (runs []Run, pos []int32, err error) {
	g := gather{}
	if p.saved != nil {
		g.add(p.saved, Run{Ref: len(p.f.Refs), Len: p.upTo})
	}
	for _, r := range st.Runs {
		if r.Delta != 0 && p.fl.RoPE == nil {
			return nil, nil, errors.New("keys cannot be moved: the model's RoPE is not known")
		}
		g.add(p.f.Refs[r.Ref].State, r)
	}
	if len(g.pos) == 0 || g.pos[len(g.pos)-1] != st.From-1 {
		return nil, nil, fmt.Errorf("position %d would have no cell: the server could not go on behind it", st.From-1)
	}
	return g.runs, g.pos, nil
}

// gather collects rows of a new state, whose cells stand in order of position.
type gather struct {
	runs []Run
	pos  []int32
}

// add appends the cells that s has for the run's positions. Cells that stand in a
// row in s too stay one run; a position without a cell is left out.
func (g *gather) add(s *State, r Run) {
	for i := range r.Len {
		row, ok := s.Row(r.Src + i)
		if !ok {
			continue
		}
		g.runs = AppendRun(g.runs, Run{Ref: r.Ref, Src: int32(row), Dst: int32(len(g.pos)), Len: 1, Delta: r.Delta})
		g.pos = append(g.pos, r.Dst+i)
	}
}

// restore has the server read what compose wrote; where there is nothing before the stage the
// slot is emptied instead. A server that did not answer may read the file later, when it must
// not be another request's.
func (p *progress) restore(ctx context.Context, want int) error {
	defer p.injecting(time.Now())
	if want == 0 {
		return p.fl.Backend.Erase(ctx, p.f.Slot)
	}
	if err := p.fl.emptyDraft(ctx, p.f.Slot); err != nil {
		return err
	}
	n, err := p.fl.Backend.Restore(ctx, p.f.Slot, p.composed.File())
	abandonUnanswered(p.composed, err)
	if err != nil {
		return err
	}
	if n != want {
		return fmt.Errorf("%w: restored %d tokens, %d were written", ErrNotTaken, n, want)
	}
	return nil
}

func (p *progress) injecting(since time.Time) { p.done.Inject += time.Since(since) }

// stage has the server compute [From, To) and reads back the result.
func (p *progress) stage(ctx context.Context, st FillStage) (Prefilled, error) {
	defer p.injecting(time.Now())
	got, err := p.fl.Backend.Prefill(ctx, p.f.Slot, p.f.Tokens[:st.To])
	if err != nil {
		return got, discreet(err)
	}
	if got.CacheN != int(st.From) {
		return got, fmt.Errorf("%w: it found %d tokens in its cache, %d were restored", ErrNotTaken, got.CacheN, st.From)
	}
	p.forgetSaved()
	if err := p.save(ctx); err != nil {
		return got, err
	}
	return got, p.reopen(st)
}

// save has the server write the slot to savedIn. It waits for the answer even if the client
// is gone: the server saves in any case, when the file could be another request's already.
// If no answer comes, the file is abandoned.
func (p *progress) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.f.SaveWithin)
	defer cancel()
	_, _, err := p.fl.Backend.Save(ctx, p.f.Slot, p.savedIn.File())
	abandonUnanswered(p.savedIn, err)
	return err
}

// abandonUnanswered keeps a file from other requests where the server may not be done with it.
func abandonUnanswered(f *ScratchFile, err error) {
	var answer *BackendError
	if err != nil && !errors.As(err, &answer) {
		f.Abandon()
	}
}

// forgetSaved unmaps the state of the stage before, whose rows are in the
// composed one by now: the server writes the next over it.
func (p *progress) forgetSaved() {
	if p.saved != nil {
		p.saved.Close()
		p.saved = nil
	}
}

// reopen maps the state that the server saved.
func (p *progress) reopen(st FillStage) error {
	s, err := OpenState(p.savedIn.Path())
	if err != nil {
		return err
	}
	p.saved = s
	if err := s.Layout.Equal(p.fl.Layout); err != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if _, ok := s.Row(st.To - 1); !ok || len(s.Tokens) < int(st.To) {
		return fmt.Errorf("the backend saved %d tokens after computing up to %d", len(s.Tokens), st.To)
	}
	p.upTo = st.To
	return nil
}

// files gets the files of the fill before the slot is touched.
func (p *progress) files() (err error) {
	bytes := int64(len(p.f.Tokens)) * p.fl.Layout.BytesPerToken()
	if p.composed, err = p.fl.Store.Scratch(bytes); err == nil && len(p.f.Stages) > 1 {
		p.savedIn, err = p.fl.Store.Scratch(bytes)
	}
	return err
}
