package proxy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// While the backend has nothing to do, the opening of each reference is computed once
// more behind the rest of it (bridge.Rehearsal).

const (
	// rehearsalIdle is how long nothing must have been asked for a rehearsal to begin.
	rehearsalIdle = time.Second
	// rehearsalPoll is how often that is looked at.
	rehearsalPoll = time.Second
	// rehearsalTimeout bounds one.
	rehearsalTimeout = 2 * time.Minute
	// rehearsalTries is how often one is begun that requests interrupt.
	rehearsalTries = 3

	// headTokens of the message also stay in place: models attend to a prompt's first
	// tokens whatever they say (Xiao et al., arXiv 2309.17453), and a message often
	// starts with an instruction.
	headTokens = 16
	// leastOpening is how many tokens must be computed once more for it to be of use.
	leastOpening = 128
	// questionTokens at a message's end are left out of what the opening is computed
	// behind: a question there would draw its answer, not the next passage.
	questionTokens = 32
)

// rehearsals are the references that were tried, and how often; those of no use count as
// tried often enough.
type rehearsals struct {
	mu    sync.Mutex
	tried map[string]int
}

// keepRehearsing rehearses the share of each reference, one after the other, whenever the
// backend is idle.
func (sh *Sharer) keepRehearsing(lv *live, share float64) {
	for {
		select {
		case <-lv.ctx.Done():
			return
		case <-time.After(rehearsalPoll):
		}
		if sh.active.idleFor() >= rehearsalIdle {
			sh.rehearseNext(lv.ctx, lv, share, func() bool { return sh.active.idleFor() > 0 && sh.free(lv.ctx) })
		}
	}
}

// Rehearse rehearses all references now, whatever else is asked meanwhile; it is for
// whoever turned store.rehearse off to choose the time.
func (sh *Sharer) Rehearse(ctx context.Context, share float64) {
	lv := sh.live.Load()
	for lv != nil && share > 0 && ctx.Err() == nil {
		if !sh.rehearseNext(ctx, lv, share, func() bool { return true }) {
			return
		}
	}
}

// rehearseNext rehearses the reference used last of those that were not yet; false means
// that there is none, or that the backend is not free. goOn is asked again and again.
func (sh *Sharer) rehearseNext(ctx context.Context, lv *live, share float64, goOn func() bool) bool {
	if !lv.users.begin() {
		return false
	}
	defer lv.users.end()
	id, ok := lv.unrehearsed()
	if !ok || !sh.free(ctx) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, rehearsalTimeout)
	defer cancel()
	err := sh.guardedRehearsal(ctx, lv, id, share, goOn)
	lv.rehearsals.note(id, err)
	sh.rehearsed(id, err)
	return true
}

// free tells whether the backend answers and is not seen to work, as for a client that
// goes around the sidecar.
func (sh *Sharer) free(ctx context.Context) bool {
	busy, _ := sh.backend.Busy(ctx)
	return sh.backend.Health(ctx) == nil && !slices.Contains(busy, true)
}

// guardedRehearsal has a panic end this rehearsal and not the process.
func (sh *Sharer) guardedRehearsal(ctx context.Context, lv *live, id string, share float64, goOn func() bool) (err error) {
	defer func() {
		if r := recover(); r != nil {
			sh.metrics.Panics.Inc()
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return sh.rehearse(ctx, lv, id, share, goOn)
}

// interrupted reports whether a rehearsal ended since the backend, or its slot, was wanted
// for something else.
func interrupted(err error) bool {
	return errors.Is(err, bridge.ErrInterrupted) || errors.Is(err, bridge.ErrNotTaken) || errors.Is(err, context.Canceled)
}

// errNoUse says that a reference would gain nothing, or that there is no room.
var errNoUse = errors.New("no use")

// note counts a try; only what was interrupted is tried again.
func (r *rehearsals) note(id string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tried == nil {
		r.tried = map[string]int{}
	}
	if interrupted(err) {
		r.tried[id]++
	} else {
		r.tried[id] = rehearsalTries
	}
}

// rehearsed counts and logs the outcome.
func (sh *Sharer) rehearsed(id string, err error) {
	result := "failed"
	switch {
	case err == nil:
		result = "done"
	case errors.Is(err, errNoUse), errors.Is(err, bridge.ErrNotAdmitted), errors.Is(err, bridge.ErrNoReference):
		return
	case interrupted(err):
		result = "interrupted"
	default:
		sh.log.Warn().Err(err).Str("reference", id).Msg("not rehearsed")
	}
	sh.metrics.Rehearsals.WithLabelValues(result).Inc()
}

// unrehearsed is the reference used last of those that are to be rehearsed yet.
func (lv *live) unrehearsed() (id string, ok bool) {
	if lv.probed.RoPE == nil || lv.probed.Volatile {
		return "", false // keys cannot be moved; or the slot would be emptied meanwhile
	}
	r := &lv.rehearsals
	r.mu.Lock()
	defer r.mu.Unlock()
	tried := map[string]int{} // without those that are gone
	for _, m := range lv.store.All() {
		n := r.tried[m.ID]
		tried[m.ID] = n
		if !ok && n < rehearsalTries && m.Copy.Len == 0 && m.Generation == 0 {
			id, ok = m.ID, true
		}
	}
	r.tried = tried
	return id, ok
}

// rehearse puts a longer reference in the place of the one named.
func (sh *Sharer) rehearse(ctx context.Context, lv *live, id string, share float64, goOn func() bool) error {
	ref, err := lv.store.Get(id)
	if err != nil {
		return err
	}
	defer ref.Release()
	r := bridge.Rehearsal{Ref: ref, Threads: sh.threads(), GoOn: goOn}
	if !lv.opening(&r, share) {
		return errNoUse
	}
	bytes := lv.stored.FileBytes(r.Tokens(), r.Tokens())
	if st := lv.store.Stats(); st.Budget > 0 && st.Bytes+st.Reserved+bytes > st.Budget {
		return errNoUse // no other reference is to go for it
	}
	meta := ref.Meta
	meta.Copy = r.Copy()
	p, err := lv.store.Reserve(bytes, meta, 1)
	if err != nil {
		return err
	}
	defer p.Abort()
	err = sh.inSlot(ctx, lv, ref.Tenant, func(slot int) error {
		r.Slot = slot
		return lv.filler.Rehearse(ctx, r, p)
	})
	if err != nil {
		return err
	}
	longer, err := p.Commit()
	if err != nil {
		return err
	}
	defer longer.Release()
	defer sh.gauges(lv)
	fp := lv.signer.Fingerprint(ref.State.Tokens)
	if err := sh.index.Add(ctx, lv.scope(ref.Tenant), longer.ID, fp); err != nil {
		lv.store.Drop(longer.ID, "not in the index")
		return err
	}
	_ = sh.active.wait(ctx) // a request under way may have chosen the shorter one
	lv.store.Replace(ref, longer)
	return nil
}

// opening chooses what is computed once more, and behind what; false means that it is not
// worth it. What stands between control tokens is a message. Behind EarlyTokens tokens a
// token has context enough as it is.
func (lv *live) opening(r *bridge.Rehearsal, share float64) bool {
	n := min(int(share*float64(len(r.Ref.State.Tokens))), matcher.EarlyTokens)
	from, to := longestMessage(r.Ref.State.Tokens, lv.model.IsControl)
	r.From, r.Keep, r.To, r.End = from, from+headTokens, from+n, to-questionTokens
	return n >= leastOpening && r.From < matcher.EarlyTokens && r.Keep+r.End-r.To >= matcher.EarlyTokens
}

// longestMessage is the longest stretch of tokens without a control token.
func longestMessage(tokens []int32, control func(int32) bool) (from, to int) {
	start := 0
	for i := range len(tokens) + 1 {
		if i < len(tokens) && !control(tokens[i]) {
			continue
		}
		if i-start > to-from {
			from, to = start, i
		}
		start = i + 1
	}
	return from, to
}

// inSlot has f use, for the tenant, the slot that was used least recently, and puts back
// what it held.
func (sh *Sharer) inSlot(ctx context.Context, lv *live, tenant string, f func(slot int) error) error {
	sl, _ := lv.slots.acquire(ctx, "", nil, 1)
	if sl == nil {
		return fmt.Errorf("%w: no slot is free", bridge.ErrInterrupted)
	}
	held, err := sh.aside(ctx, lv, sl)
	if err != nil {
		lv.slots.putBack(sl)
		return err
	}
	defer held.Release()
	err = f(sl.id)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eraseTimeout)
	defer cancel()
	if held == nil || sh.restore(ctx, sl.id, held, len(sl.tokens)) != nil {
		sl.tenant, sl.tokens, sl.generation = "", nil, 0
		if sh.backend.Erase(ctx, sl.id) != nil {
			sl.tenant = tenant // whose prompt may be in it still
		}
	}
	lv.slots.putBack(sl)
	return err
}

// aside saves what the slot holds; nil where it holds nothing.
func (sh *Sharer) aside(ctx context.Context, lv *live, sl *slot) (*bridge.ScratchFile, error) {
	if len(sl.tokens) == 0 {
		return nil, nil
	}
	f, err := lv.store.Scratch(int64(len(sl.tokens)) * lv.probed.Layout.BytesPerToken())
	if err != nil {
		return nil, err
	}
	if _, _, err := sh.backend.Save(ctx, sl.id, f.File()); err != nil {
		f.Release()
		return nil, err
	}
	return f, nil
}

// restore has the slot hold again what aside saved.
func (sh *Sharer) restore(ctx context.Context, slot int, f *bridge.ScratchFile, least int) error {
	n, err := sh.backend.Restore(ctx, slot, f.File())
	if err == nil && n < least {
		err = fmt.Errorf("restored %d tokens, the slot held %d", n, least)
	}
	return err
}
