package proxy

import (
	"context"
	"hash/crc32"
	"net/http"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

// A backend that nothing can be shared with still has a cache of prefixes of its own in each
// slot. Where tenants are kept apart a book of its slots is kept for that alone: a request goes
// to a slot of its tenant's, in which the backend itself looks for how the prompt begins. What
// another tenant left, or nobody knows who, is not looked at.

// unshared is such a backend, from one probe to the next.
type unshared struct {
	slots *slots
	users tracker // requests that go by the book; closed once it is not to be believed any more
	ctx   context.Context
	end   context.CancelFunc
}

func newUnshared(n int) *unshared {
	u := &unshared{slots: newSlots(n)}
	u.ctx, u.end = context.WithCancel(context.Background())
	return u
}

// bookRetry is how long after one that failed another try is made at a book.
const bookRetry = 10 * time.Second

// keepBook begins a book of a backend that was refused, where its slots can be kept apart.
func (w *watch) keepBook(ctx context.Context, props bridge.Props) {
	if !w.sh.cfg.Apart() || props.Slots < 1 || !w.endBook(ctx) {
		return
	}
	doubts := w.sh.doubts.Load()
	why, err := w.mixes(ctx, props)
	if err != nil {
		why = "whether llama-server loads others' prompts from its memory could not be found out: " + err.Error()
	}
	if said := w.sh.noBook.Swap(&why); why != "" && (said == nil || *said != why) {
		w.sh.log.Warn().Str("why", why).Msg("tenants are kept apart, and nothing is shared: every prompt is computed from its first token, and /v1/messages is refused")
	}
	if why != "" && err == nil {
		return
	}
	u := newUnshared(props.Slots)
	if err != nil || w.sh.doubts.Load() != doubts { // meanwhile
		u.users.close()
		w.bookFrom = time.Now().Add(bookRetry)
	}
	w.sh.unshared.Store(u)
}

// mixes is why the backend may find another tenant's prompt for a request in a slot that holds
// its own tenant's, or "".
func (w *watch) mixes(ctx context.Context, props bridge.Props) (string, error) {
	if props.Start == "" { // llama.cpp #20671 came shortly before servers marked their starts
		return "llama-server is from before April 2026: with a sliding window it may go on from the prompt before; use a newer one", nil
	}
	slot, _, _ := w.sh.backend.Idle(ctx, -1) // the first, where it tells nothing of its slots
	loads, err := w.sh.backend.Remembers(ctx, slot)
	if loads && err == nil {
		return "llama-server loads what it keeps of others' prompts in memory; start it with --cache-ram 0", nil
	}
	return "", err
}

// unknownSlots is why a request is refused while there is no book.
func (sh *Sharer) unknownSlots() string {
	if why := sh.noBook.Load(); why != nil && *why != "" {
		return unknownSlots + ": " + *why
	}
	return unknownSlots
}

// renewBook begins another book of a backend that was refused, where the last one is doubted or
// could not be begun.
func (w *watch) renewBook(ctx context.Context, props bridge.Props) {
	if u := w.sh.unshared.Load(); u != nil && u.users.isClosed() && time.Now().After(w.bookFrom) {
		w.keepBook(ctx, props)
	}
}

// bookInUse: requests go by the book. It is not ended for a refusal that merely lapsed, as that
// would make all others' prompts cold until the longest answer is over.
func (w *watch) bookInUse() bool {
	u := w.sh.unshared.Load()
	return u != nil && !u.users.isClosed() && !u.users.isIdle()
}

// endBook ends the book and waits until nobody goes by it: what would come after it could not
// tell what they leave in which slot. It reports whether that was before ctx ended.
func (w *watch) endBook(ctx context.Context) bool {
	u := w.sh.unshared.Load()
	if u == nil {
		return true
	}
	u.users.close()
	u.end()
	if u.users.wait(ctx) != nil {
		return false
	}
	w.sh.unshared.Store(nil)
	return true
}

// books are those that requests go by now.
func (sh *Sharer) books() (out []*slots) {
	if lv := sh.live.Load(); lv != nil {
		out = append(out, lv.slots)
	}
	if u := sh.unshared.Load(); u != nil {
		out = append(out, u.slots)
	}
	return out
}

// goUnshared has the request go by the book of a backend that nothing is shared with, if there
// is one.
func (d *decision) goUnshared() {
	if u := d.sh.unshared.Load(); u != nil && u.users.begin() {
		d.unshared, d.book = u, u.slots
	}
}

// takeOwn pins the request to the slot of its tenant's whose last body begins most like this
// one, or that was used least recently. It may find there what its own tenant left.
func (d *decision) takeOwn(ctx context.Context) {
	begins := beginnings(d.req.Body)
	least := max(1, int(exactShare*float64(len(begins))))
	if d.slot, _ = d.book.acquire(ctx, d.req.Tenant, begins, least, 0); d.slot == nil {
		return
	}
	if d.ownSlot() && !d.uncertain() {
		d.Body = d.req.Body
	}
	d.choose()
}

func (d *decision) ownSlot() bool { return d.req.Tenant != "" && d.slot.tenant == d.req.Tenant }

// pieceBytes is in what pieces bodies are compared: some dozen tokens.
const pieceBytes = 64

// beginnings returns numbers that stand for a body where nothing is shared, so that prompts
// are not tokenized: one for each piece. Bodies that begin alike have the same first numbers,
// such as those of two turns of a chat.
func beginnings(body []byte) (out []int32) {
	for len(body) > 0 {
		n := min(pieceBytes, len(body))
		out = append(out, int32(crc32.ChecksumIEEE(body[:n])))
		body = body[n:]
	}
	return out
}

// leaveUnshared gives the slot back and has it noted whose prompt is in it.
func (d *decision) leaveUnshared(ctx context.Context, o outcome) {
	if d.unshared == nil {
		return
	}
	defer d.unshared.users.end()
	d.awaitIdle(ctx, o)
	switch {
	case d.slot == nil:
		return
	case d.replaced(o):
		d.book.release(d.slot, d.req.Tenant, beginnings(d.req.Body), 0)
	case d.ownSlot(), o.Err == nil && o.Status/100 == 4:
		// It has what was in it, or some of its own tenant's prompt. What the backend refuses it
		// refuses before it looks at the slot.
		d.book.giveBack(d.slot)
	default:
		d.book.release(d.slot, "", nil, 0)
	}
	d.slot = nil
}

// replaced reports whether the request's prompt took the place of what the slot held. An
// answer alone does not show that: an empty prompt leaves the slot as it was.
func (d *decision) replaced(o outcome) bool {
	if d.req.Tenant == "" || o.Status != http.StatusOK {
		return false
	}
	return o.Err == nil && o.PromptN > 0 || o.ClientGone && o.Began
}
