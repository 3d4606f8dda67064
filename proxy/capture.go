package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// captureTimeout is what the saving of a slot may take at least (patience).
const captureTimeout = 30 * time.Second

// notKept is an error that says why a prompt did not become a reference; a fixed set, since
// they label metrics.
type notKept string

func (why notKept) Error() string { return string(why) }

const (
	errMeasured  notKept = "measured"
	errNotFuzzy  notKept = "route keeps none"
	errTooShort  notKept = "short prompt"
	errComposed  notKept = "composed"
	errUnknown   notKept = "origin unknown"
	errKnown     notKept = "not novel"
	errForeign   notKept = "other tokens than expected"
	errInDemand  notKept = "slots in demand"
	errSlotEmpty notKept = "slot emptied by another request"
	// errNotIndexed: it is on the disk, and keepIndexed puts it in later, or says that the
	// index is away.
	errNotIndexed notKept = "not in the index"
)

// capture saves the slot's KV as a reference, if it is worth keeping, and frees the
// slot as soon as that is done: another request may use it while what was saved is
// checked and written anew.
func (d *decision) capture(o outcome) {
	start := time.Now()
	d.trace(o)
	p, err := d.saveWorthy(o)
	d.free(len(d.tokens) == 0 || o.counted(len(d.tokens)), nil)
	if err == nil {
		err = d.commit(p)
		d.sh.step("capture", start)
	}
	d.report.NotKept = err
	d.sh.captured(d.lv, err)
}

// trace notes how long the answer is, and sets the slot's generation to unknown if the backend
// found more of the prompt there than the book knew of, or may have.
func (d *decision) trace(o outcome) {
	if d.State != StateShared && (o.CacheN > d.reach || o.CacheN < 0 && d.mayFindMore()) {
		d.generation = max(d.generation, unknown)
	}
	d.slot.behind = o.PredictedN
}

// mayFindMore reports whether the backend, which does not say what it found, may have found more
// of the prompt than the book knew of: KV that it shifted (n_cache_reuse) or had in its RAM
// cache, or that a request around the sidecar left. Which tokens stood before it when it was
// computed is not known. It finds nothing where the request forbade that (cache_prompt: false),
// and what is known where the prompt goes on with all that the slot held.
func (d *decision) mayFindMore() bool {
	return !d.whole && gjson.GetBytes(d.Body, "cache_prompt").Type != gjson.False
}

// shifts reports whether the request has the backend move what it finds to other positions.
func (d *decision) shifts() bool { return gjson.GetBytes(d.Body, "n_cache_reuse").Int() > 0 }

// traceBroken is trace for a client that hung up during the answer, so that its length is
// unknown: the book allows for a whole context of it.
func (d *decision) traceBroken(o outcome) {
	d.trace(o)
	d.slot.behind = d.lv.probed.Props.Context
}

// saveWorthy saves the slot, or says why it is not worth it.
func (d *decision) saveWorthy(o outcome) (*bridge.Pending, error) {
	cfg := d.sh.cfg.Store
	switch {
	case d.sh.keepNone.Load():
		return nil, errMeasured
	case d.req.Policy.Reuse != configs.ReuseFuzzy, d.req.Adapters != "":
		return nil, errNotFuzzy
	case len(d.tokens) < cfg.MinTokens:
		return nil, errTooShort
	case d.generation == unknown:
		return nil, errUnknown
	case d.generation > cfg.MaxGeneration:
		return nil, errComposed
	case d.report.Similarity >= cfg.Novelty && d.State == StateShared:
		return nil, errKnown
	case o.CacheN < 0 || o.CacheN+o.PromptN != len(d.tokens):
		return nil, errForeign
	case d.State == StateExact && o.PromptN < cfg.MinTokens && d.known():
		return nil, errKnown
	case d.uncertain():
		return nil, errForeign
	case d.book.exhausted() && d.seen == 0 && len(d.book.all) > 1:
		return nil, errInDemand
	}
	return d.save(o)
}

// known tells whether a reference still holds what the slot held: it may have been
// dropped since.
func (d *decision) known() bool {
	ctx, cancel := context.WithTimeout(context.Background(), captureTimeout)
	defer cancel()
	found, err := d.sh.index.Find(ctx, d.sh.scope(d.req.Tenant, d.lv.refKey), d.lv.signer.Fingerprint(d.tokens), candidates)
	if err != nil {
		return true // what cannot be looked up is not to be kept twice
	}
	d.seen = found.Seen
	for _, c := range found.Candidates {
		p, err := d.lv.store.Prompt(c.ID)
		if err == nil && p.Tenant == d.req.Tenant && matcher.CommonPrefix(p.Tokens, d.tokens) >= int(d.sh.cfg.Store.Novelty*float64(len(d.tokens))) {
			return true
		}
	}
	return false
}

// save reserves room and has the backend save.
func (d *decision) save(o outcome) (*bridge.Pending, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.lv.patience(captureTimeout))
	defer cancel()
	if d.lv.probed.Volatile {
		if !d.lv.gate.enter(ctx) {
			return nil, errSlotEmpty
		}
		defer d.lv.gate.leave()
		if n, err := d.sh.backend.Held(ctx, d.slot.id); err != nil || n < len(d.tokens) {
			return nil, errSlotEmpty
		}
	}
	n := len(d.tokens) + max(0, o.PredictedN)
	meta := bridge.Meta{Tenant: d.req.Tenant, Generation: d.generation}
	p, err := d.lv.store.Reserve(d.lv.stored.FileBytes(n, n), meta, d.seen+1)
	if err != nil {
		return nil, err
	}
	if _, _, err := d.sh.backend.Save(ctx, d.slot.id, p.File()); err != nil {
		p.Abort()
		return nil, err
	}
	if d.uncertain() || d.outlived() {
		p.Abort()
		return nil, errForeign
	}
	return p, nil
}

// outlived reports whether the backend may no longer be the one that was probed: what was
// saved may then be another model's.
func (d *decision) outlived() bool {
	return d.sh.changed(d.lv) != "" || d.sh.live.Load() != d.lv
}

// commit makes what was saved a reference that can be found.
func (d *decision) commit(p *bridge.Pending) error {
	ref, err := p.Commit()
	if err != nil {
		return err
	}
	defer ref.Release()
	defer d.sh.gauges(d.lv)
	if matcher.CommonPrefix(ref.State.Tokens, d.tokens) != len(d.tokens) {
		d.lv.store.Drop(ref.ID, bridge.DropOtherTokens)
		return errForeign
	}
	if err := d.sh.index.Add(context.Background(), d.sh.scope(d.req.Tenant, d.lv.refKey), ref.ID, d.lv.signer.Fingerprint(d.tokens), time.Now()); err != nil {
		d.sh.metrics.IndexErrors.Inc()
		d.sh.log.Debug().Err(err).Str("id", d.req.ID).Msg("index")
		return errNotIndexed
	}
	return nil
}

// captured counts and logs the result of a capture.
func (sh *Sharer) captured(lv *live, err error) {
	var why notKept
	switch {
	case err == nil:
		sh.metrics.Captures.WithLabelValues("kept").Inc()
	case errors.Is(err, bridge.ErrNotAdmitted):
		sh.metrics.Captures.WithLabelValues("not admitted").Inc()
	case errors.As(err, &why):
		sh.metrics.Captures.WithLabelValues(string(why)).Inc()
	default:
		sh.metrics.Captures.WithLabelValues("failed").Inc()
		sh.log.Warn().Err(err).Msg("reference not kept")
		if errors.Is(err, bridge.ErrChanged) {
			sh.doubt(lv, err.Error(), reprobeAfter)
		}
	}
}
