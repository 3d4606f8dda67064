package proxy

import (
	"context"
	"time"
)

// What shows that the backend may not be the one that was probed. A server that is started
// anew, perhaps by somebody else, may have other weights under the same name, another KV
// type or fewer slots, and takes most of what it is given all the same.

const (
	// attendEvery is how often the backend is looked at, lookTimeout how long it may take:
	// one that is busy with its connections is no other.
	attendEvery = time.Second
	lookTimeout = 5 * time.Second
)

// Doubt has the backend probed anew before anything more is shared. It may be called at any
// time, as when the server was seen to end.
func (sh *Sharer) Doubt(why string) {
	sh.doubts.Add(1)
	if u := sh.unshared.Load(); u != nil {
		u.users.close()
	}
	if lv := sh.live.Load(); lv != nil {
		sh.doubt(lv, why, probeEvery)
	}
}

// attend looks at the backend until it was seen to be another one. That it is away the
// client of the bridge notices.
func (sh *Sharer) attend(lv *live) {
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	for {
		if sh.look(lv) {
			return
		}
		select {
		case <-lv.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look doubts the backend where it is seen to be another one, and reports whether it did.
func (sh *Sharer) look(lv *live) bool {
	if lv.model == nil && lv.modelFile.isThere() {
		sh.doubt(lv, "there is a model file now, or another one", sh.reprobePause(lv))
		return true
	}
	switch what := sh.changed(lv); what {
	case "":
		return false
	case asleep:
		sh.doubt(lv, asleep, probeEvery)
	default:
		sh.doubt(lv, "the backend may have been started anew: "+what+" changed", sh.reprobePause(lv))
	}
	return true
}

// asleep is why nothing is shared with a backend that sleeps. Its slots are gone, and what it
// reads when it wakes may be other weights, with other scales of its adapters. To try it out
// would wake it.
const asleep = "the backend sleeps (--sleep-idle-seconds): it is tried out when a request has woken it"

// reprobePause is how long to wait before the next probe. It doubles each time that the
// backend is replaced within reprobeAfter, as happens if two servers share an address.
func (sh *Sharer) reprobePause(lv *live) time.Duration {
	if time.Since(lv.since) > reprobeAfter {
		sh.flaps.Store(0)
	}
	return min(reprobeAfter, probeEvery<<min(sh.flaps.Add(1)-1, 6))
}

// changed returns the name of what differs from when the backend was probed, or asleep if it
// sleeps. It is empty if nothing is known to differ.
func (sh *Sharer) changed(lv *live) string {
	if lv.model != nil && lv.model.Replaced() {
		return "the model file"
	}
	ctx, cancel := context.WithTimeout(lv.ctx, lookTimeout)
	defer cancel()
	props, err := sh.backend.Look(ctx)
	if err != nil {
		return ""
	}
	if props.Sleeping {
		return asleep
	}
	return lv.probed.Props.Differs(props)
}
