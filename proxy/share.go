package proxy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// Why a request is cold; a fixed set, since they label metrics.
const (
	coldUnavailable = "backend cannot share"
	coldNoTenant    = "no tenant"
	coldRefused     = "key refused"
	coldTokens      = "tokens unknown"
	coldShort       = "short prompt"
	coldIndex       = "index unavailable"
	coldNothing     = "nothing similar"
	coldDissimilar  = "below minimum similarity"
	coldNoGain      = "no gain"
	coldLate        = "time budget"
	coldBusy        = "no slot free"
	coldReference   = "reference lost"
	coldFill        = "injection failed"
	coldClientGone  = "client gone"
	coldFault       = "fault in sharing"
	coldExactOnly   = "no exact prefix"
)

const (
	// exactShare is the part of a prompt that a slot must hold already for it to
	// be chosen for its prefix rather than its age.
	exactShare = 0.1
	// exactEnough is the part from which on nothing else is looked for.
	exactEnough = 0.95
	// candidates asked of the index.
	candidates = 8
	// maxStages of one fill; each makes the backend stand still twice.
	maxStages = 192
	// gain is what sharing must be expected to take at most, as a share of the
	// best without it.
	gain = 0.9
	// eraseTimeout bounds the clean-up after a fault.
	eraseTimeout = 10 * time.Second
)

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

	sh         *Sharer
	g          *Generation
	lv         *live // nil where nothing is known of the backend
	slot       *slot
	tokens     []int32
	generation int // of the KV that the slot will hold
	expect     int // cache_n if all is well; -1 not known
	seen       int // how often a prompt like it was asked before
	report     Report
	gated      bool
	over       chan struct{} // closed by Finish
	trial      *Trial
}

// Prepare decides, and fills a slot where sharing pays. It never fails: every
// fault ends in a cold Decision with the untouched body.
func (sh *Sharer) Prepare(ctx context.Context, g *Generation) *Decision {
	start := time.Now()
	sh.active.begin()
	d := &Decision{Body: g.Body, State: StateCold, Slot: -1, sh: sh, g: g, expect: -1, over: make(chan struct{})}
	d.underTrial()
	d.guarded(ctx)
	d.report.Total = time.Since(start)
	if d.Header == "" {
		d.Header = "cold; reason=" + d.Reason
	}
	return d
}

// guarded decides, and goes cold where that panics: a fault in sharing must not
// cost the request.
func (d *Decision) guarded(ctx context.Context) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		d.sh.metrics.Panics.Inc()
		d.sh.log.Error().Str("panic", fmt.Sprint(r)).Bytes("stack", debug.Stack()).Msg("recovered; the request goes cold")
		if d.slot != nil {
			d.giveUp(coldFault)
			return
		}
		d.cold(coldFault)
	}()
	d.decide(ctx)
}

// decide takes the steps of a request one after the other until one settles it.
func (d *Decision) decide(ctx context.Context) {
	lv := d.sh.live.Load()
	switch {
	case d.g.Policy.Reuse == configs.ReuseOff:
		d.Reason = d.g.Off
		return
	case d.g.Tenant == "":
		d.cold(coldNoTenant)
		return
	case lv == nil || !lv.users.begin():
		d.cold(coldUnavailable)
		return
	}
	d.lv = lv
	if d.g.Off != "" {
		d.cold(d.g.Off)
		return
	}
	p, reason := d.match(ctx)
	if d.tokens == nil {
		d.cold(reason)
		return
	}
	d.inject(ctx, p, reason)
}

// cold leaves the request to the backend, and the choice of slot with it. Where
// tenants differ, it must not find what another's prompt left in a slot.
func (d *Decision) cold(reason string) {
	d.State, d.Reason, d.Header = StateCold, reason, ""
	d.Body = d.g.Body
	if d.g.Policy.Tenant.Source != "shared" && gjson.ValidBytes(d.Body) {
		d.set("cache_prompt", false)
	}
}

func (d *Decision) set(key string, value any) {
	if body, err := sjson.SetBytes(d.Body, key, value); err == nil {
		d.Body = body
	}
}

// planned is a plan that pays, with its references still to be opened.
type planned struct {
	*matcher.Plan
	matcher.Schedule
	recipe bool    // the agent carries it out
	inside float64 // what the agent computes, in ms at the price of a prefill
}

// match finds out the tokens, looks for similar prompts and plans how they serve.
// A nil result comes with the reason.
func (d *Decision) match(ctx context.Context) (*planned, string) {
	start := time.Now()
	defer func() { d.report.Match = time.Since(start) }()
	ctx, cancel := context.WithTimeout(ctx, d.g.Policy.Budget)
	defer cancel()
	tokens, err := d.lv.tokens.tokens(ctx, d.g.Authorization, &d.g.Prompt)
	d.sh.step("tokens", start)
	if refused(err) {
		return nil, coldRefused
	}
	if err != nil || len(tokens) == 0 {
		d.sh.log.Debug().Err(err).Str("id", d.g.ID).Msg("no tokens")
		return nil, late(ctx, coldTokens)
	}
	d.tokens, d.report.Tokens = tokens, tokens
	pol := &d.g.Policy
	switch {
	case pol.Reuse == configs.ReuseExact:
		return nil, coldExactOnly
	case len(tokens) < pol.MinTokens:
		return nil, coldShort
	case d.lv.slots.longestPrefix(d.g.Tenant, tokens) >= int(exactEnough*float64(len(tokens))):
		return nil, coldNoGain
	}
	refs, reason := d.lookUp(ctx)
	if len(refs) == 0 {
		return nil, reason
	}
	return d.plan(ctx, refs)
}

// late names the time budget where it was what ran out.
func late(ctx context.Context, otherwise string) string {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return coldLate
	}
	return otherwise
}

// lookUp asks the index and verifies what it names.
func (d *Decision) lookUp(ctx context.Context) ([]matcher.Reference, string) {
	defer d.sh.step("lookup", time.Now())
	found, err := d.sh.index.Find(ctx, d.lv.scope(d.g.Tenant), d.lv.signer.Fingerprint(d.tokens), candidates)
	if err != nil {
		d.sh.metrics.IndexErrors.Inc()
		d.sh.log.Debug().Err(err).Str("id", d.g.ID).Msg("index")
		return nil, late(ctx, coldIndex)
	}
	d.seen = found.Seen
	var refs []matcher.Reference
	for _, c := range found.Candidates {
		if tokens, copied, err := d.lv.store.Tokens(c.ID); err == nil {
			refs = append(refs, matcher.Reference{ID: c.ID, Tokens: tokens, Copy: matcher.Copy(copied)})
		}
	}
	pol := &d.g.Policy
	return matcher.Verify(d.tokens, refs, pol.References, pol.Seam), coldNothing
}

// plan aligns and schedules, and weighs the outcome against doing without.
func (d *Decision) plan(ctx context.Context, refs []matcher.Reference) (*planned, string) {
	defer d.sh.step("align", time.Now())
	pol := &d.g.Policy
	alignment := matcher.Align(d.tokens, refs, d.lv.signer, pol.Seam)
	d.lean()
	p := matcher.Decide(alignment, d.lv.rules(pol, d.agent()))
	d.report.Similarity, d.report.Plan = p.Similarity, p.Tokens
	for _, r := range refs {
		d.report.Refs = append(d.report.Refs, r.ID)
	}
	if p.Similarity < pol.MinSimilarity {
		return nil, coldDissimilar
	}
	costs := d.lv.costs.model()
	if d.agent() {
		return d.batch(ctx, p, costs)
	}
	limits := matcher.Limits{Stages: maxStages, Budget: -1}
	if pol.Unrepaired == configs.UnrepairedAccept {
		limits.Budget = pol.RepairShare * costs.Prefill(0, len(d.tokens))
	}
	s := matcher.NewSchedule(p, costs, limits)
	return d.worth(ctx, &planned{Plan: p, Schedule: s}, costs)
}

// worth weighs a schedule against what an exact prefix saves anyway.
func (d *Decision) worth(ctx context.Context, p *planned, costs matcher.Costs) (*planned, string) {
	prefix := d.lv.slots.longestPrefix(d.g.Tenant, d.tokens)
	d.sh.log.Debug().Str("id", d.g.ID).Float64("similarity", p.Similarity).Float64("cost_ms", p.Cost).Float64("cold_ms", p.Cold).
		Interface("costs", costs).Interface("spans", p.Spans).Msg("planned")
	if d.trial == nil && p.Cost > gain*costs.Prefill(prefix, len(d.tokens)) {
		return nil, coldNoGain
	}
	if ctx.Err() != nil {
		return nil, coldLate
	}
	return p, ""
}

// slotFirstSeam is how many seams' length a passage's start takes, by the slot way, where
// it opened its reference and does not open the prompt. The agent shifts such a passage
// as a whole instead.
const slotFirstSeam = 4

// rules are the route's, as the matcher takes them.
func (lv *live) rules(p *configs.Policy, agent bool) matcher.Rules {
	r := matcher.Rules{TokenSimilarity: matcher.DefaultTokenSimilarity, Followers: p.Followers, CriticalFollowers: p.CriticalFollowers,
		Seam: p.Seam, FirstSeam: slotFirstSeam * p.Seam, Shifted: agent, Fixed: lv.probed.RoPE == nil}
	if agent {
		r.Followers, r.FirstSeam = p.AgentFollowers, p.Seam
	}
	r.Critical, _ = matcher.ParseClasses(p.Critical) // validated with the configuration
	if lv.model != nil {
		r.Pieces = lv.model.Piece
	}
	return r
}

// inject takes a slot and fills it as planned; without a plan the slot that holds
// the longest exact prefix is taken.
func (d *Decision) inject(ctx context.Context, p *planned, reason string) {
	if d.lv.probed.Volatile {
		if d.gated = d.lv.gate.enter(ctx); !d.gated {
			d.cold(coldClientGone)
			return
		}
	}
	wait, cancel := context.WithTimeout(ctx, d.sh.cfg.Limits.SlotWait)
	defer cancel()
	least := int(exactShare * float64(len(d.tokens)))
	if p != nil {
		least = len(d.tokens) + 1 // the oldest: what others hold may still serve them
	}
	sl, prefix := d.lv.slots.acquire(wait, d.g.Tenant, d.tokens, least)
	if sl == nil {
		d.cold(coldBusy)
		return
	}
	d.slot = sl
	if p == nil {
		d.pin(prefix, reason)
		return
	}
	if reason := d.fill(ctx, p); reason != "" {
		d.giveUp(reason)
	}
}

// pin forwards without sharing, to the slot that was chosen.
func (d *Decision) pin(prefix int, reason string) {
	d.Slot, d.Reason = d.slot.id, reason
	d.set("id_slot", d.slot.id)
	if prefix > int(exactShare*float64(len(d.tokens))) {
		d.State, d.Reason, d.generation = StateExact, "", d.slot.generation
		d.Header = fmt.Sprintf("exact; reused=%.4f", float64(prefix)/float64(len(d.tokens)))
		d.report.Reused = prefix
	}
	if d.slot.tenant != "" && d.slot.tenant != d.g.Tenant || d.slot.generation == thinned && d.State != StateExact {
		// Another's prompt, or a few tokens of a cache that lacks some: this one's
		// KV may yet become a reference.
		d.set("cache_prompt", false)
	}
}

// fill composes and injects; a reason means that it failed.
func (d *Decision) fill(ctx context.Context, p *planned) string {
	refs, err := d.open(p)
	defer release(refs)
	if err != nil {
		d.sh.log.Warn().Err(err).Str("id", d.g.ID).Msg("reference not usable")
		return coldReference
	}
	if p.recipe {
		return d.cook(ctx, p, refs)
	}
	f := bridge.Fill{Slot: d.slot.id, Tokens: d.tokens, Stages: stages(p), Refs: refs, Threads: d.sh.threads()}
	done, err := d.lv.filler.Fill(ctx, f)
	d.report.Compose, d.report.Inject = done.Compose, done.Inject
	if err != nil {
		d.sh.fillFailed(d, err)
		return coldFill
	}
	d.sh.metrics.Steps.WithLabelValues("compose").Observe(done.Compose.Seconds())
	d.sh.metrics.Steps.WithLabelValues("inject").Observe(done.Inject.Seconds())
	d.lv.costs.filled(done)
	d.report.Work = float64(p.Recomputed()) / float64(len(d.tokens))
	d.shared(p, done)
	return ""
}

// shared notes what was injected.
func (d *Decision) shared(p *planned, done bridge.Filled) {
	n := len(d.tokens)
	recomputed := p.Recomputed()
	d.State, d.Reason, d.Slot, d.expect = StateShared, "", d.slot.id, done.Tokens
	d.report.Reused, d.report.Recomputed = n-recomputed, recomputed
	d.report.Cells = done.Cells + n - done.Tokens
	d.set("id_slot", d.slot.id)
	d.Header = fmt.Sprintf("shared; similarity=%.4f; reused=%.4f; recomputed=%.4f", p.Similarity,
		float64(n-recomputed)/float64(n), float64(recomputed)/float64(n))
	d.sh.metrics.Tokens.WithLabelValues("reused").Add(float64(n - recomputed))
	d.sh.metrics.Tokens.WithLabelValues("recomputed").Add(float64(recomputed))
	for i, id := range p.Refs {
		if saved := usedOf(p.Plan, i); saved > 0 {
			d.lv.store.Hit(id, saved)
		}
	}
}

// open pins the plan's references and works out the generation of what is
// composed from those that it draws on. The caller releases what is returned,
// also with an error.
func (d *Decision) open(p *planned) ([]*bridge.Reference, error) {
	var out []*bridge.Reference
	step := composed(p.Plan)
	for i, id := range p.Refs {
		ref, err := d.lv.store.Get(id)
		if err != nil {
			return out, err
		}
		out = append(out, ref)
		if ref.Tenant != d.g.Tenant || ref.Model != d.lv.key {
			return out, fmt.Errorf("reference %s belongs to another tenant or model", id)
		}
		if usedOf(p.Plan, i) > 0 {
			d.generation = max(d.generation, ref.Generation+step)
		}
	}
	return out, nil
}

func release(refs []*bridge.Reference) {
	for _, r := range refs {
		r.Release()
	}
}

// usedOf counts the tokens taken from the plan's reference i.
func usedOf(p *matcher.Plan, i int) int {
	n := 0
	for _, t := range p.Tokens {
		if int(t.Ref) == i && (t.Reason == matcher.Reused || t.Reason == matcher.Fuzzy) {
			n++
		}
	}
	return n
}

// composed is 0 where the plan only takes an exact prefix of one reference, whose
// KV is what the model itself would compute, and 1 otherwise.
func composed(p *matcher.Plan) int {
	for i, t := range p.Tokens {
		if t.Reason.Recomputed() {
			// Behind the prefix everything must be computed.
			for _, u := range p.Tokens[i:] {
				if !u.Reason.Recomputed() {
					return 1
				}
			}
			return 0
		}
		if t.Reason != matcher.Reused || int(t.Pos) != i || t.Ref != p.Tokens[0].Ref {
			return 1
		}
	}
	return 0
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
		if k := len(out) - 1; k >= 0 && out[k].Ref == int(t.Ref) && out[k].Src+out[k].Len == t.Pos && out[k].Dst+out[k].Len == int32(i) {
			out[k].Len++
			continue
		}
		out = append(out, bridge.Run{Ref: int(t.Ref), Src: t.Pos, Dst: int32(i), Len: 1, Delta: int32(i) - t.Pos})
	}
	return out
}

// giveUp empties the slot, whose content nobody knows, and forwards the
// untouched request.
func (d *Decision) giveUp(reason string) {
	d.erase()
	d.lv.slots.release(d.slot, "", nil, 0)
	d.slot, d.generation = nil, 0
	d.cold(reason)
}

// erase empties the slot. A backend that cannot even do that is not to be filled
// again before it was looked at.
func (d *Decision) erase() {
	ctx, cancel := context.WithTimeout(context.Background(), eraseTimeout)
	defer cancel()
	if err := d.sh.backend.Erase(ctx, d.slot.id); err != nil {
		d.sh.doubt(d.lv, "a slot could not be emptied: "+err.Error(), probeEvery)
	}
}

// step observes the time of one step since start.
func (sh *Sharer) step(name string, start time.Time) {
	sh.metrics.Steps.WithLabelValues(name).Observe(time.Since(start).Seconds())
}

// fillFailed logs and counts a failed fill.
func (sh *Sharer) fillFailed(d *Decision, err error) {
	if errors.Is(err, context.Canceled) {
		return // the client left
	}
	sh.log.Warn().Err(err).Str("id", d.g.ID).Int("slot", d.slot.id).Msg("injection failed, the request goes cold")
	if errors.Is(err, bridge.ErrNotTaken) {
		d.report.RestoreFailed = true
		sh.mismatch(d.lv)
	}
}

// mismatch counts a restore that the backend's cache_n did not confirm.
func (sh *Sharer) mismatch(lv *live) {
	sh.metrics.Mismatches.Inc()
	if sh.mismatches.Add(1) >= maxMismatches && !lv.probed.Volatile {
		sh.doubt(lv, "the backend repeatedly did not take what it restored", reprobeAfter)
	}
}
