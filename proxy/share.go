package proxy

import "context"

// Sharer decides what is shared and does it: it turns a Generation into a
// Decision by way of the matcher and the bridge.
type Sharer struct{}

// Decision is how a generation request is forwarded.
type Decision struct {
	// Body is what goes to the backend.
	Body []byte
	// Header is the value of the X-SemShareKV response header.
	Header string
	State  State
	Reason string
	// Slot is the pinned slot, or -1 where the server chooses.
	Slot int
}

// Prepare decides, and fills a slot where sharing pays. It never fails: every
// fault ends in a cold Decision with the untouched body.
func (sh *Sharer) Prepare(ctx context.Context, g *Generation) *Decision {
	return &Decision{Body: g.Body, State: StateCold, Slot: -1}
}

// Finish is called exactly once, after the answer went through or broke: it
// verifies, captures and frees the slot.
func (d *Decision) Finish(o Outcome) {}
