package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// finish is called exactly once, after the answer went through or broke: it
// verifies, captures and frees the slot. Once ctx is done it does not wait for what
// the backend is still at.
func (d *decision) finish(ctx context.Context, o outcome) {
	defer d.sh.active.end()
	defer d.overUnpinned(ctx, o)
	defer d.release()
	close(d.over)
	d.report.ID, d.report.State, d.report.Reason, d.report.Slot = d.req.ID, d.State, d.Reason, d.Slot
	d.report.CacheN = o.CacheN
	if d.lv == nil {
		d.leaveUnshared(ctx, o)
		d.observe()
		return
	}
	defer d.lv.users.end()
	d.leaveGate()
	if d.confirm(ctx) != nil {
		d.tokens = nil // they count as unknown
	}
	d.awaitIdle(ctx, o)
	d.learn(o)
	switch {
	case d.slot == nil:
	case d.verify(o):
		d.capture(o)
	default:
		d.freeUntaken(o)
	}
	d.observe()
}

// release gives back what is still held, also where finishing panicked.
func (d *decision) release() {
	switch {
	case d.all:
		d.book.releaseAll()
	case d.slot != nil:
		d.slot.adapters = unknownAdapters
		d.book.release(d.slot, "", nil, d.generation)
	}
}

func (d *decision) observe() {
	if f := d.sh.observer.Load(); f != nil {
		(*f)(d.report)
	}
}

// learn feeds the cost model with the backend's own prefill time, that of a request left
// to it too: where nothing is shared for now, nothing else would show that it could pay.
func (d *decision) learn(o outcome) {
	if d.req.Off == "" && o.CacheN >= 0 && o.PromptN > 0 {
		d.lv.costs.prefilled(o.CacheN, o.PromptN, o.PromptMS)
	}
}

// verify compares the backend's cache_n with what was injected: its own word is
// the only proof that a restore took. It reports whether the slot holds what it
// should.
func (d *decision) verify(o outcome) bool {
	if o.Status != http.StatusOK || o.Err != nil || o.Failed {
		if d.State == StateShared && !o.ClientGone && !errors.Is(o.Err, errDraining) {
			_ = d.erase(d.slot)
			d.blame(o)
		}
		return false
	}
	if d.State != StateShared || o.CacheN < 0 {
		return true
	}
	if o.CacheN == d.expect {
		d.lv.strikes.Store(0)
		return true
	}
	d.sh.log.Warn().Str("id", d.req.ID).Int("cache_n", o.CacheN).Int("injected", d.expect).Msg("the backend did not use what was injected")
	d.report.RestoreFailed = true
	if d.req.guessed() {
		d.sh.metrics.Mismatches.Inc()
	} else {
		d.mismatch()
	}
	_ = d.erase(d.slot)
	return false
}

// blame counts an answer with which the backend failed, rather than refused, what was
// filled in: once a prompt, which its client may send again and again.
func (d *decision) blame(o outcome) {
	if o.Err != nil || o.Status < http.StatusInternalServerError || o.Status == http.StatusNotImplemented || o.Status == http.StatusServiceUnavailable {
		return
	}
	d.sh.log.Warn().Str("id", d.req.ID).Int("status", o.Status).Msg("the backend failed on a slot that was filled")
	prompt := digest(fmt.Sprint(d.tokens))
	if last := d.sh.blamed.Swap(&prompt); last == nil || *last != prompt {
		d.sh.strike(d.lv, notTaken)
	}
}

// freeUntaken gives the slot back after an exchange that failed.
func (d *decision) freeUntaken(o outcome) {
	switch {
	case d.untouched(o):
		d.book.giveBack(d.slot)
		d.slot = nil
	case d.holdsWhole(o):
		d.traceBroken(o)
		d.free(true, nil)
	default:
		d.free(false, d.left(o))
	}
}

// untouched: the backend refused the request, which it does before it looks at the slot (but
// for the adapters there), and nothing was filled in.
func (d *decision) untouched(o outcome) bool {
	return o.Err == nil && o.Status/100 == 4 && d.State != StateShared && !d.touched && !d.otherAdapters()
}

// holdsWhole: the client hung up during the answer, when all of the prompt was in the slot.
func (d *decision) holdsWhole(o outcome) bool {
	return o.ClientGone && o.Status == http.StatusOK && o.Began && !d.isUnpinned && !d.req.guessed() &&
		len(d.tokens) > 0 && o.counted(len(d.tokens))
}

// left returns the prompt if, after the client hung up, the slot holds nothing but some prefix
// of it and perhaps part of an answer. It is nil if something else may be there, such as KV
// that the backend shifted. Since no answer tells, the slot must have held only tokens that
// this prompt begins with.
func (d *decision) left(o outcome) []int32 {
	if !o.ClientGone || !d.whole || d.req.Adapters != "" || d.otherAdapters() {
		return nil
	}
	return d.tokens
}

// free gives the slot back and notes what it holds now, or what is left in it.
func (d *decision) free(taken bool, left []int32) {
	held, generation := d.tokens, d.generation
	if !taken { // some part of the prompt, perhaps, or what was there before
		held, generation = nil, max(generation, d.slot.generation)
	}
	if taken || d.slot.adapters == d.req.Adapters {
		d.slot.adapters = d.req.Adapters
	} else {
		d.slot.adapters = unknownAdapters
	}
	d.book.releaseLeaving(d.slot, d.req.Tenant, held, left, generation)
	d.slot = nil
}
