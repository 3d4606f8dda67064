package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

const (
	// exactShare is the part of a prompt that a slot must hold already for it to
	// be chosen for its prefix rather than its age.
	exactShare = 0.1
	// eraseTimeout is what the clean-up after a fault may take at least (patience).
	eraseTimeout = 10 * time.Second
)

// inject takes a slot and fills it as planned; without a plan the slot that holds
// the longest exact prefix is taken.
func (d *decision) inject(ctx context.Context, p *planned, reason string) {
	wait, cancel := context.WithTimeout(ctx, d.sh.cfg.Limits.SlotWait)
	defer cancel()
	least := int(exactShare * float64(len(d.tokens)))
	if p != nil {
		least = len(d.tokens) + 1 // the oldest: what others hold may still serve them
	}
	sl, prefix := d.acquireIdle(wait, d.tokens, least, d.maxGeneration())
	if sl == nil {
		d.leaveToBackend(ctx, late(ctx, coldBusy))
		return
	}
	d.slot, d.overBefore = sl, d.sh.unpinned.over.Load()
	d.reach, d.whole = sl.reach(d.tokens, prefix)
	if p != nil && d.uncertain() {
		p, reason = nil, coldUnavailable // what is filled in could be overwritten
	}
	// Who saves a slot waits at the gate too: whoever is in must not wait for a slot.
	if !d.enterGate(ctx) {
		d.book.giveBack(sl)
		d.slot = nil
		d.cold(coldClientGone)
		return
	}
	if p == nil {
		d.pin(prefix, reason)
		return
	}
	d.sh.composed.Store(true)
	reason = d.fill(ctx, p)
	if reason == "" && (d.uncertain() || d.sh.live.Load() != d.lv) {
		reason = coldUnavailable
	}
	switch {
	case reason == "":
	case d.touched:
		d.giveUp(reason)
	default:
		d.generation = 0
		d.pin(0, reason)
	}
}

// acquireIdle acquires a slot that the backend, too, is not at work in: who is pinned to
// another request's waits for its end, and servers since June 2026 may load another prompt
// into it meanwhile (llama.cpp #24755), with which that request then goes on. nil: ctx ended.
func (d *decision) acquireIdle(ctx context.Context, tokens []int32, least, most int) (sl *slot, prefix int) {
	for {
		sl, prefix = d.book.acquire(ctx, d.req.Tenant, tokens, least, most)
		if sl == nil || !d.strangerIn(ctx, sl) {
			return sl, prefix
		}
		d.book.leaveToStranger(sl) // another comes first now, once it is idle
		if ctx.Err() != nil {
			return nil, 0
		}
	}
}

// strangerIn reports whether the backend is at work in an acquired slot, for a request that
// the book does not know. It is asked where there may be one, or where that would suffer.
func (d *decision) strangerIn(ctx context.Context, sl *slot) bool {
	if !d.lv.remembers && d.sh.unpinned.under() == 0 {
		return false
	}
	for range 2 { // an answer may be through a moment before its slot is idle
		busy, ok := d.sh.backend.Busy(ctx)
		if !ok || !atWork(busy, sl.id) {
			return false
		}
		select {
		case <-time.After(lookAfter):
		case <-ctx.Done():
			return true
		}
	}
	return true
}

// loadsOther reports whether the backend may load another tenant's prompt into the slot: it
// looks for one where less than half of what the slot holds would stay. An answer of no
// tokens is one that nobody counted.
func (d *decision) loadsOther(prefix int) bool {
	sl := d.slot
	return d.req.Apart && d.lv.remembers && (sl.behind == 0 || 2*prefix < len(sl.tokens)+sl.behind)
}

// pin forwards without sharing, to the slot that was chosen.
func (d *decision) pin(prefix int, reason string) {
	d.Reason = reason
	d.choose()
	if d.shifts() { // of an answer behind the prefix too
		d.reach, d.whole = min(d.reach, prefix), false
	}
	if prefix > int(exactShare*float64(len(d.tokens))) && !d.uncertain() && !d.loadsOther(prefix) {
		d.State, d.Reason, d.generation = StateExact, "", d.slot.generation
		d.Header = fmt.Sprintf("exact; reused=%.4f", float64(prefix)/float64(len(d.tokens)))
		d.report.Reused = prefix
	}
	if d.State != StateExact && (d.req.Apart || d.wary() || d.slot.generation > 0 || d.otherAdapters()) {
		// Another's prompt or nobody knows whose, or a few tokens of KV that was composed, or
		// computed by other adapters: this one's may yet become a reference.
		d.set("cache_prompt", "false")
	}
}

// fill composes and injects; a reason means that it failed.
func (d *decision) fill(ctx context.Context, p *planned) string {
	refs, err := d.open(p)
	defer release(refs)
	if err != nil {
		d.notUsable(err)
		return coldReference
	}
	if err := d.useAdapters(ctx); err != nil {
		d.touched = true
		return d.fillFailed(ctx, err)
	}
	if p.recipe {
		return d.cook(ctx, p, refs)
	}
	f := bridge.Fill{Slot: d.slot.id, Tokens: d.tokens, Stages: stages(p), Refs: refs, Threads: d.sh.threads(), SaveWithin: d.lv.patience(captureTimeout)}
	var done bridge.Filled
	err = d.withRoom(ctx, func() (err error) {
		done, err = d.lv.filler.Fill(ctx, f)
		return err
	})
	d.report.Compose, d.report.Inject = done.Compose, done.Inject
	if err != nil {
		return d.fillFailed(ctx, err)
	}
	d.sh.metrics.Steps.WithLabelValues("compose").Observe(done.Compose.Seconds())
	d.sh.metrics.Steps.WithLabelValues("inject").Observe(done.Inject.Seconds())
	d.lv.costs.filled(done)
	d.report.Work = float64(p.Recomputed()) / float64(len(d.tokens))
	d.shared(p, done)
	return ""
}

// shared notes what was injected.
func (d *decision) shared(p *planned, done bridge.Filled) {
	n := len(d.tokens)
	recomputed := p.Recomputed()
	d.State, d.Reason, d.expect = StateShared, "", done.Tokens
	d.report.Reused, d.report.Recomputed = n-recomputed, recomputed
	d.report.Cells = done.Cells + n - done.Tokens
	d.choose()
	d.Header = fmt.Sprintf("shared; similarity=%.4f; reused=%.4f; recomputed=%.4f", d.report.Similarity,
		float64(n-recomputed)/float64(n), float64(recomputed)/float64(n))
	d.sh.metrics.Tokens.WithLabelValues("reused").Add(float64(n - recomputed))
	d.sh.metrics.Tokens.WithLabelValues("recomputed").Add(float64(recomputed))
	for i, id := range p.Refs {
		if saved := p.Used(i); saved > 0 {
			d.lv.store.Hit(id, saved)
		}
	}
}

// slotSteps is how many generations what the slot way composes is away from its references:
// passages in another context, which it does not shift, are off by about twice as much.
const slotSteps = 2

// open pins the plan's references and works out the generation of what is
// composed from those that it draws on. The caller releases what is returned,
// also with an error.
func (d *decision) open(p *planned) ([]*bridge.Reference, error) {
	var out []*bridge.Reference
	step := 0
	switch {
	case !p.Composed():
	case p.recipe:
		step = 1
	default:
		step = slotSteps
	}
	for i, id := range p.Refs {
		ref, err := d.lv.store.Get(id)
		if err != nil {
			return out, err
		}
		out = append(out, ref)
		if ref.Tenant != d.req.Tenant || ref.Model != d.lv.refKey {
			return out, fmt.Errorf("reference %s belongs to another tenant or model", id)
		}
		if p.Used(i) > 0 {
			d.generation = max(d.generation, ref.Generation+step)
		}
	}
	return out, nil
}

// notUsable says that a reference could not be opened. That one left the store, or another
// sidecar's went with its files, since it was looked up, is no fault.
func (d *decision) notUsable(err error) {
	if isAny(err, bridge.ErrNoReference, fs.ErrNotExist) {
		d.sh.log.Debug().Err(err).Str("id", d.req.ID).Msg("reference gone")
		return
	}
	d.sh.log.Warn().Err(err).Str("id", d.req.ID).Msg("reference not usable")
}

func release(refs []*bridge.Reference) {
	for _, r := range refs {
		r.Release()
	}
}

// stages turns the schedule into what the bridge carries out.
func stages(p *planned) []bridge.FillStage {
	var out []bridge.FillStage
	at := 0
	for _, s := range p.Spans {
		out = append(out, bridge.FillStage{Runs: runs(p.Tokens, at, s.From), From: int32(s.From), To: int32(s.To)})
		at = s.To
	}
	return out
}

// runs are the stretches of [from, to) that stand in a row in a reference too.
func runs(tokens []matcher.PlanToken, from, to int) []bridge.Run {
	var out []bridge.Run
	for i := from; i < to; i++ {
		t := tokens[i]
		if t.Reason == matcher.Hole || t.Ref < 0 {
			continue
		}
		out = bridge.AppendRun(out, bridge.Run{Ref: int(t.Ref), Src: t.Pos, Dst: int32(i), Len: 1, Delta: int32(i) - t.Pos})
	}
	return out
}

// giveUp empties the slot, whose content nobody knows, and leaves the request to the
// backend.
func (d *decision) giveUp(reason string) {
	_ = d.erase(d.slot)
	d.generation = 0
	d.cold(reason)
	if d.req.Apart {
		d.choose()
		return
	}
	d.book.release(d.slot, "", nil, 0)
	d.slot, d.Slot = nil, -1
}

// erase empties a slot. A backend that cannot even do that is not to be filled
// again before it was looked at.
func (d *decision) erase(sl *slot) error {
	timeout := eraseTimeout
	if d.lv != nil {
		timeout = d.lv.patience(eraseTimeout)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := d.sh.backend.Erase(ctx, sl.id)
	if err != nil && d.lv != nil {
		d.sh.doubt(d.lv, "a slot could not be emptied: "+err.Error(), probeEvery)
	}
	return err
}

// fillFailed logs and counts a failed fill, and returns why the request is cold.
func (d *decision) fillFailed(ctx context.Context, err error) (reason string) {
	sh := d.sh
	switch {
	case ctx.Err() != nil && !errors.Is(err, context.DeadlineExceeded): // not a save that never ends
		return coldClientGone
	case errors.Is(err, bridge.ErrNoCells):
		sh.log.Info().Err(err).Str("id", d.req.ID).Int("slot", d.slot.id).Msg("no room for what was to be injected, the request goes cold")
		return coldCells
	}
	sh.log.Warn().Err(err).Str("id", d.req.ID).Int("slot", d.slot.id).Msg("injection failed, the request goes cold")
	d.report.RestoreFailed = errors.Is(err, bridge.ErrNotTaken)
	var refused *bridge.BackendError
	var file *fs.PathError
	switch {
	case errors.Is(err, bridge.ErrChanged):
		sh.doubt(d.lv, err.Error(), reprobeAfter)
	case brokeOff(err):
		sh.fillBroke(d.lv)
	case d.report.RestoreFailed, errors.Is(err, context.DeadlineExceeded): // a save that never ends
		d.mismatch()
	case errors.As(err, &file):
		sh.strike(d.lv, "the slot directory could repeatedly not be used: "+file.Error())
	case errors.As(err, &refused) && d.untested():
	case errors.As(err, &refused), errors.Is(err, bridge.ErrCorrupt): // of what it saved between two stages
		sh.strike(d.lv, notTaken)
	}
	return coldFill
}
