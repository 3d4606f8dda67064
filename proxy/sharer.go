package proxy

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// Sharer decides what is shared and does it: it turns a request into a
// decision by way of the matcher and the bridge. Make it with openSharer; the
// zero value shares nothing.
type Sharer struct {
	cfg      *configs.Config
	log      zerolog.Logger
	metrics  *Metrics
	backend  *bridge.Backend
	kernels  *bridge.Kernels
	index    *matcher.Index
	measured bool   // references of other runs are left alone
	secret   []byte // the HMAC key of the index
	// directory is the slot directory's id in the index.
	directory string

	// live is what is known of the backend; nil while nothing can be shared.
	live     atomic.Pointer[live]
	unshared atomic.Pointer[unshared] // nil, or closed, where there is no book of a backend that nothing is shared with
	noBook   atomic.Pointer[string]   // why there is none, as far as it was found out; "" where there is
	whyNot   atomic.Pointer[string]
	tried    atomic.Bool            // the backend was tried out, whatever came of it
	blamed   atomic.Pointer[string] // digest of the last prompt that the backend failed on
	doubts   atomic.Int64
	observer atomic.Pointer[func(Report)]
	trial    atomic.Pointer[Trial]
	keepNone atomic.Bool // what is measured becomes no reference

	losses losses       // of the backend while the agent was at work
	breaks losses       // while it was tried out, or slots were filled through saved states
	flaps  atomic.Int32 // how often in a row the backend was another one within a minute

	hold     hold
	reprobe  chan struct{}
	stop     context.CancelFunc
	stopped  <-chan struct{}
	running  sync.WaitGroup
	active   tracker // requests between prepare and the end of finish
	unpinned unpinned
	scales   scales
	// composed: slots were filled since the start.
	composed atomic.Bool
	// inherited: an earlier sidecar may have filled slots, which no probe has emptied yet.
	inherited atomic.Bool
	// uncleared is the last backend that was probed, or one of which not even the number of
	// slots is known, which may be inherited; nil where there was none, or its slots were
	// emptied while nothing was known of it.
	uncleared atomic.Pointer[bridge.Props]
}

// openSharer opens the index and begins to find out about the backend, which need not be up
// yet. Without a slot directory nothing is shared. Errors are of the configuration:
// everything else is retried.
func openSharer(cfg *configs.Config, log zerolog.Logger, m *Metrics, measured bool) (*Sharer, error) {
	if cfg.Backend.SlotDir == "" {
		return &Sharer{}, nil
	}
	if err := bridge.MakePrivate(cfg.Backend.SlotDir); err != nil {
		return nil, fmt.Errorf("cannot use the slot directory %q: %w", cfg.Backend.SlotDir, err)
	}
	secret, err := indexSecret(cfg)
	if err != nil {
		return nil, err
	}
	directory, err := directoryID(cfg.Backend.SlotDir)
	if err != nil {
		return nil, err
	}
	index, err := matcher.OpenIndex(matcher.IndexOptions{URL: cfg.Index.Redis, Prefix: cfg.Index.Prefix,
		Secret: secret, TTL: cfg.Index.TTL, Timeout: cfg.Index.Timeout})
	if err != nil {
		return nil, err
	}
	sh := &Sharer{cfg: cfg, log: log, metrics: m, index: index, secret: secret, directory: directory, measured: measured, reprobe: make(chan struct{}, 1),
		scales:  scales{turn: newGate()},
		backend: bridge.NewBackend(cfg.Backend.URL, cfg.Backend.APIKey, cfg.Backend.Connect)}
	sh.backend.Gone = func(err error) { sh.Doubt("the backend is away: " + err.Error()) }
	sh.loadKernels()
	sh.because("the backend was not reached yet")
	sh.inherit()
	ctx, stop := context.WithCancel(context.Background())
	sh.stop, sh.stopped = stop, ctx.Done()
	w := &watch{sh: sh, probeRun: newID()}
	sh.running.Go(func() { w.run(ctx) })
	return sh, nil
}

// Close ends captures under way and gives everything back.
func (sh *Sharer) Close() error {
	if !sh.shares() {
		return nil
	}
	sh.stop()
	_ = sh.active.wait(context.Background())
	if lv := sh.live.Swap(nil); lv != nil {
		lv.retire()
	}
	sh.running.Wait()
	sh.backend.Close()
	return sh.index.Close()
}

// loadKernels takes the native library, or says that it is missing and goes on
// without.
func (sh *Sharer) loadKernels() {
	k, err := bridge.LoadKernels(sh.cfg.Backend.Library)
	if err != nil {
		sh.log.Warn().Err(err).Msg("composing in Go, several times slower")
		k = bridge.GoKernels()
	}
	sh.kernels = k
}

// threads to compose with: the backend stands still meanwhile, so its CPUs are
// free, but a pod's limits may say otherwise.
func (sh *Sharer) threads() int {
	if n := sh.cfg.Backend.Threads; n > 0 {
		return n
	}
	return min(8, runtime.GOMAXPROCS(0))
}

func (sh *Sharer) gauges(lv *live) {
	st := lv.store.Stats()
	sh.metrics.StoreBytes.Set(float64(st.Bytes))
	sh.metrics.StoreReferences.Set(float64(st.References))
}

// tellHow sets the metrics that say how the backend is shared with.
func (sh *Sharer) tellHow(lv *live) {
	tell(sh.metrics.Agent, lv.agent())
	tell(sh.metrics.Calibrated, lv.calibrated())
	tell(sh.metrics.Identity, lv.signer.Identity())
}

func tell(g prometheus.Gauge, is bool) {
	if is {
		g.Set(1)
	} else {
		g.Set(0)
	}
}

// Observe has f called with everything known of each generation request that is
// over. For measuring: reports hold token ids.
func (sh *Sharer) Observe(f func(Report)) { sh.observer.Store(&f) }

// Drain waits until what was answered has been captured.
func (sh *Sharer) Drain(ctx context.Context) error {
	return sh.active.wait(ctx)
}

// Forget drops all references that it may use, those that are just being captured too, and
// empties all slots.
func (sh *Sharer) Forget(ctx context.Context) error {
	if err := sh.Drain(ctx); err != nil {
		return err
	}
	lv := sh.live.Load()
	if lv == nil {
		return sh.Ready()
	}
	for _, m := range lv.store.All() {
		lv.store.Drop(m.ID, bridge.DropForgotten)
	}
	return sh.EmptySlots(ctx)
}

// EmptySlots empties all slots; the references stay.
func (sh *Sharer) EmptySlots(ctx context.Context) error {
	lv := sh.live.Load()
	if lv == nil {
		return sh.Ready()
	}
	for i := range lv.probed.Props.Slots {
		if err := sh.backend.Erase(ctx, i); err != nil {
			return err
		}
	}
	lv.slots.allEmptied()
	return nil
}
