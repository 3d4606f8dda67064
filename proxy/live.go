package proxy

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// signerSeed fixes the random projections; it is part of every index key.
const signerSeed = 0x5353_4b56

// live is everything that depends on the backend's model and layout.
type live struct {
	probed    *bridge.Probed
	model     *bridge.Model // nil where no GGUF can be read
	modelFile modelFile     // watched where there is no model
	signer    *matcher.Signer
	store     *bridge.Store
	stored    *bridge.Layout // in which the store keeps references
	filler    *bridge.Filler
	tokenizer tokenizer
	parts     parts
	slots     *slots
	costs     *costs
	key       string // model key: state and signer
	refKey    string // of the references of this model's weights: keyOfWeights
	since     time.Time
	// calibration is nil where the model is not calibrated.
	calibration atomic.Pointer[Calibration]
	gate        gate
	// remembers: the server loads what it keeps of earlier prompts into a slot that a request
	// names (--cache-ram).
	remembers bool
	// agentKernels are those that the agent computes with, where there is one.
	agentKernels string
	// whyNoAgent is nil where the agent fills the slots.
	whyNoAgent atomic.Pointer[string]
	failures   atomic.Int32 // of the agent, in a row
	strikes    atomic.Int32 // fills in a row that the backend did not take
	lost       atomic.Bool  // the backend, at a fill or while the agent was tried out
	// scales were set that often before the probe.
	scales int64
	users  tracker // requests that hold on to the store and the model
	ctx    context.Context
	cancel context.CancelFunc // ends what runs beside requests
}

// retire closes what is no longer live, or never was, once the last request has let go of it.
func (lv *live) retire() {
	lv.users.close()
	lv.cancel()
	_ = lv.users.wait(context.Background())
	if lv.store != nil {
		_ = lv.store.Close()
	}
	if lv.model != nil {
		_ = lv.model.Close()
	}
}

// probe tries out the backend, which says of itself what props has, and builds what sharing
// needs.
func (w *watch) probe(ctx context.Context, props bridge.Props) (*live, error) {
	sh := w.sh
	scales, err := sh.askAdapters(ctx, &props)
	if err != nil {
		return nil, err
	}
	lv := &live{scales: scales, modelFile: watchModel(sh.modelPath(props))}
	lv.model = sh.openModel(props)
	lv.ctx, lv.cancel = context.WithCancel(context.Background())
	if err := w.tryOut(ctx, lv, props); err != nil {
		lv.retire()
		return nil, err
	}
	lv.signer = sh.signer(lv.model)
	lv.key = digest(lv.probed.Key, lv.signer.Key())
	lv.refKey = sh.keyOfWeights(lv)
	layout := &lv.probed.Layout
	if err := sh.openStore(lv); err != nil {
		lv.retire()
		return nil, err
	}
	lv.filler = &bridge.Filler{Backend: sh.backend, Kernels: sh.kernels, Store: lv.store, Layout: layout, RoPE: lv.probed.RoPE, Speculates: sh.backend.Speculates(ctx)}
	lv.tokenizer = tokenizer{sh.backend, lv.model, lv.probed.Props.Context}
	lv.parts.worth = lv.probed.Fast() && lv.model != nil && lv.model.BytePairs()
	sh.loadCalibration(lv)
	lv.gate = newGate()
	lv.costs = newCosts(lv.probed, layout.BytesPerToken())
	return lv, nil
}

// tryOut does all of a probe that takes slots, and makes the book of them.
func (w *watch) tryOut(ctx context.Context, lv *live, props bridge.Props) (err error) {
	sh := w.sh
	prober := bridge.Prober{Backend: sh.backend, Props: props, Dir: sh.cfg.Backend.SlotDir, Model: lv.model, Kernels: sh.kernels,
		Slot: w.clearSlot(ctx), Run: w.probeRun}
	if lv.probed, err = prober.Probe(ctx); err != nil {
		return err
	}
	if err := sh.chooseWay(ctx, lv, prober); err != nil {
		return err
	}
	if lv.remembers, err = sh.backend.Remembers(ctx, prober.Slot); err != nil {
		return err
	}
	lv.slots = newSlots(props.Slots)
	sh.clearAll(ctx, lv.slots)
	return nil
}

// clearAll empties the slots of a new book. Those at work are not waited for: at a busy
// backend that would take as long as the load lasts.
func (sh *Sharer) clearAll(ctx context.Context, s *slots) {
	busy, _ := sh.backend.Busy(ctx)
	ctx, cancel := context.WithTimeout(ctx, clearTimeout)
	defer cancel()
	for _, sl := range s.all {
		if !sh.clear(ctx, sl.id, busy) {
			sl.strangers()
		}
	}
}

// openStore opens the reference store of the backend's layout.
func (sh *Sharer) openStore(lv *live) (err error) {
	compression, err := bridge.ParseCompression(sh.cfg.Store.Compress)
	if err != nil {
		return err // validated with the configuration
	}
	layout := &lv.probed.Layout
	lv.stored = layout
	o := bridge.StoreOptions{Budget: sh.cfg.Store.Budget, Model: lv.refKey, OnlyOwn: sh.measured, Kernels: sh.kernels, Threads: sh.threads(),
		Check:  func(s *bridge.State) error { return layout.Takes(&s.Layout) },
		OnDrop: func(m bridge.Meta, reason string) { sh.dropped(lv, m, reason) }}
	if compression != nil {
		lv.stored = compression.Layout(layout)
		o.Stored = lv.stored
	}
	lv.store, err = bridge.OpenStore(sh.cfg.Backend.SlotDir, o)
	return err
}

func (sh *Sharer) modelPath(props bridge.Props) string {
	return cmp.Or(sh.cfg.Backend.Model, props.ModelPath)
}

// openModel reads the model file that is configured, or that the backend names.
func (sh *Sharer) openModel(props bridge.Props) *bridge.Model {
	m, err := bridge.OpenModel(sh.modelPath(props))
	if err != nil {
		sh.log.Warn().Err(err).Msg("the model file cannot be read (backend.model names it): tokens are matched by identity, and keys cannot be moved")
		return nil
	}
	return m
}

// signer makes the signatures of the model's vocabulary.
func (sh *Sharer) signer(m *bridge.Model) *matcher.Signer {
	if m == nil || !m.HasEmbeddings() {
		return matcher.IdentitySigner(signerSeed)
	}
	threads := sh.threads()
	row := func(t int32, dst []float32) error { return m.EmbeddingRow(sh.kernels, t, dst) }
	project := func(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64) error {
		return sh.kernels.Signatures(rows, dim, pos, freqs, planes, bits, out, threads)
	}
	s, err := matcher.NewSigner(matcher.Embeddings{Vocab: m.Vocab, Dim: m.Dim, Row: row}, signerSeed, project)
	if err != nil {
		sh.log.Warn().Err(err).Msg("the embeddings cannot be read: tokens are matched by identity")
		return matcher.IdentitySigner(signerSeed)
	}
	return s
}

// goLive shares by lv from now on, where nothing happened while it was probed: doubts is how many
// there were before.
func (sh *Sharer) goLive(lv *live, doubts int64) {
	lv.since = time.Now()
	sh.uncleared.Store(&lv.probed.Props)
	sh.disinherit(lv.slots)
	sh.live.Store(lv)
	if sh.ended() && sh.live.CompareAndSwap(lv, nil) { // Close came before and did not see it
		lv.retire()
		return
	}
	sh.metrics.Sharing.Set(1)
	sh.gauges(lv)
	sh.tellHow(lv)
	sh.announce(lv)
	sh.running.Go(func() { sh.keepIndexed(lv) })
	sh.running.Go(func() { sh.attend(lv) })
	switch { // while it was probed
	case sh.doubts.Load() != doubts:
		sh.doubt(lv, "the backend went away while it was probed", probeEvery)
	case sh.scales.set.Load() != lv.scales:
		sh.doubt(lv, scalesSet, 0)
	}
}

func (sh *Sharer) announce(lv *live) {
	way, whyNot := "agent", lv.whyNoAgent.Load()
	if whyNot != nil {
		way = "slot"
	}
	e := sh.log.Info().Str("way", way).Str("build", lv.probed.Props.Build).Int("slots", lv.probed.Props.Slots).
		Int("context", lv.probed.Props.Context).Str("kernels", sh.kernels.Name()).
		Int64("kv_bytes_per_token", lv.probed.Layout.BytesPerToken()).Int64("stored_bytes_per_token", lv.stored.BytesPerToken()).Bool("volatile_slots", lv.probed.Volatile).
		Int("references", lv.store.Stats().References).Bool("identity_matching", lv.signer.Identity()).Bool("calibrated", lv.calibrated())
	if whyNot != nil {
		e = e.Str("no_agent", *whyNot)
	} else {
		e = e.Str("agent_kernels", lv.agentKernels)
	}
	if lv.probed.Why != "" {
		e = e.Str("keys_not_movable", lv.probed.Why)
	}
	if lv.probed.NotFar != "" {
		e = e.Str("keys_not_compared_far", lv.probed.NotFar)
	}
	e.Msg("sharing")
	if lv.probed.Volatile {
		sh.log.Warn().Msg("the backend empties idle slots whenever a request starts: start llama-server with --no-cache-idle-slots, or requests that are shared wait for one another")
	}
	if lv.remembers && sh.cfg.Apart() {
		sh.log.Warn().Msg("the backend may load what it keeps of others' prompts in memory: short prefixes are not used, and /v1/messages is refused; start llama-server with --cache-ram 0")
	}
}
