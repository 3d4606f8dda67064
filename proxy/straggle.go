package proxy

import (
	"context"
	"slices"
	"time"
)

// A request that broke may go on in the backend: llama-server looks once a second whether a
// client hung up, and not at all at one that gave an X-Conversation-Id.

const (
	// lookAfter is how long it takes to look again whether a slot is still at work, at first;
	// each time twice as long, up to lookAtMost.
	lookAfter  = 20 * time.Millisecond
	lookAtMost = 100 * time.Millisecond
	// keptAtMost is the longest that such a slot is kept from others, conversedAtMost where
	// the server goes on for the conversation's sake.
	keptAtMost      = 10 * time.Second
	conversedAtMost = 10 * time.Minute
)

// unreadFor is how long a server may take to read and queue a request before it shows at work.
const unreadFor = 2 * time.Second

// whenOver calls over once the backend is done with a request whose slot nobody knows: at once
// if the answer went through, and else when no slot is at work any more, or after most. It does
// not wait for that itself.
func (sh *Sharer) whenOver(ctx context.Context, o outcome, most time.Duration, over func()) {
	if o.Err == nil || !sh.shares() {
		over()
		return
	}
	sh.running.Go(func() {
		defer over()
		ctx, cancel := context.WithTimeout(ctx, most)
		defer cancel()
		for wait := unreadFor; ; wait = lookAtMost {
			select {
			case <-ctx.Done():
				return
			case <-sh.stopped:
				return
			case <-time.After(wait):
			}
			if busy, ok := sh.backend.Busy(ctx); !ok || !slices.Contains(busy, true) {
				return
			}
		}
	})
}

// awaitIdle waits until the backend is done with the slots of a request that broke: whoever
// is pinned to one of them would wait for that, though another were idle. It ends with ctx,
// and where the backend does not tell or is another one now.
func (d *decision) awaitIdle(ctx context.Context, o outcome) {
	if o.Err == nil || d.isUnpinned || d.slot == nil && !d.all {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.goesOnFor())
	defer cancel()
	switch {
	case d.lv != nil:
		defer context.AfterFunc(d.lv.ctx, cancel)()
	case d.unshared != nil:
		defer context.AfterFunc(d.unshared.ctx, cancel)()
	}
	for wait, quiet := lookAfter, 0; ; wait = min(2*wait, lookAtMost) {
		busy, ok := d.sh.backend.Busy(ctx)
		switch {
		case !ok:
			return
		case d.atWork(busy):
			quiet = 0
		default:
			quiet, wait = quiet+1, lookAfter
		}
		if quiet == 2 { // one that has just arrived is not yet at work
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// goesOnFor is the longest that the request is taken to go on after it broke.
func (d *decision) goesOnFor() time.Duration {
	if d.req.Conversation {
		return conversedAtMost
	}
	return keptAtMost
}

// atWork reports whether a slot that the request has is busy at the backend.
func (d *decision) atWork(busy []bool) bool {
	if d.all {
		return slices.Contains(busy, true)
	}
	return atWork(busy, d.slot.id)
}

// atWork reports whether the backend, which said which slots are busy, named the slot.
func atWork(busy []bool, slot int) bool { return slot < len(busy) && busy[slot] }
