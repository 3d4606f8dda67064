package proxy

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

const (
	// signerSeed fixes the random projections; it is part of every index key.
	signerSeed = 0x5353_4b56
	// probeTimeout bounds one try at finding out about the backend; a slot that
	// is at work makes it wait.
	probeTimeout = 2 * time.Minute
	// probeEvery is how long to wait after a try that failed because the backend
	// was not there, reprobeAfter after one that was refused or went wrong.
	probeEvery   = time.Second
	reprobeAfter = time.Minute
	// maxMismatches in a row turn sharing off until the backend is probed again.
	maxMismatches = 3
	// keyFile in the slot directory holds the HMAC key of the index.
	keyFile = "semsharekv.key"
)

// Sharer decides what is shared and does it: it turns a Generation into a
// Decision by way of the matcher and the bridge. Make it with NewSharer; the
// zero value shares nothing.
type Sharer struct {
	cfg     *configs.Config
	log     zerolog.Logger
	metrics *Metrics
	backend *bridge.Backend
	kernels *bridge.Kernels
	index   *matcher.Index

	// live is what is known of the backend; nil while nothing can be shared.
	live       atomic.Pointer[live]
	whyNot     atomic.Pointer[string]
	tried      atomic.Bool // the backend was tried out, whatever came of it
	mismatches atomic.Int32
	observer   atomic.Pointer[func(Report)]
	trial      atomic.Pointer[Trial]

	reprobe chan struct{}
	stop    context.CancelFunc
	stopped <-chan struct{}
	running sync.WaitGroup
	active  tracker // requests between Prepare and the end of Finish
}

// live is everything that depends on the backend's model and layout.
type live struct {
	probed *bridge.Probed
	model  *bridge.Model // nil where no GGUF can be read
	signer *matcher.Signer
	store  *bridge.Store
	stored *bridge.Layout // in which the store keeps references
	filler *bridge.Filler
	tokens tokenizer
	slots  *slots
	costs  *costs
	key    string // model key: state and signer
	// calibration is nil where the model is not calibrated.
	calibration atomic.Pointer[Calibration]
	gate        gate
	rehearsals  rehearsals
	// whyNoAgent is nil where the agent fills the slots.
	whyNoAgent atomic.Pointer[string]
	users      tracker // requests that hold on to the store and the model
	ctx        context.Context
	cancel     context.CancelFunc // ends what runs beside requests
}

// NewSharer opens the index and begins to find out about the backend, which need
// not be up yet. Errors are of the configuration: everything else is retried.
func NewSharer(cfg *configs.Config, log zerolog.Logger, m *Metrics) (*Sharer, error) {
	if err := os.MkdirAll(cfg.Backend.SlotDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot use the slot directory %q: %w", cfg.Backend.SlotDir, err)
	}
	secret, err := indexSecret(cfg)
	if err != nil {
		return nil, err
	}
	index, err := matcher.OpenIndex(matcher.IndexOptions{URL: cfg.Index.Redis, Prefix: strings.TrimSuffix(cfg.Index.Prefix, ":"),
		Secret: secret, TTL: cfg.Index.TTL, Timeout: cfg.Index.Timeout})
	if err != nil {
		return nil, err
	}
	sh := &Sharer{cfg: cfg, log: log, metrics: m, index: index, reprobe: make(chan struct{}, 1),
		backend: bridge.NewBackend(cfg.Backend.URL, cfg.Backend.APIKey, cfg.Backend.Connect)}
	sh.loadKernels()
	sh.because("the backend was not reached yet")
	ctx, stop := context.WithCancel(context.Background())
	sh.stop, sh.stopped = stop, ctx.Done()
	sh.running.Go(func() { sh.watch(ctx) })
	return sh, nil
}

// openSharer makes the sharer of a configuration that names a slot directory.
func openSharer(cfg *configs.Config, log zerolog.Logger, m *Metrics) (*Sharer, error) {
	if cfg.Backend.SlotDir == "" {
		return &Sharer{}, nil
	}
	return NewSharer(cfg, log, m)
}

// Close ends captures under way and gives everything back.
func (sh *Sharer) Close() error {
	if sh.stop == nil {
		return nil // shares nothing
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

// indexSecret is the configured HMAC key, or one made at the first start.
func indexSecret(cfg *configs.Config) ([]byte, error) {
	path := cfg.Index.SecretFile
	if path == "" {
		path = filepath.Join(cfg.Backend.SlotDir, keyFile)
	}
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && cfg.Index.SecretFile == "" {
		return newSecret(path)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the index secret: %w", err)
	}
	if len(secret) < 16 {
		return nil, fmt.Errorf("index secret %s has %d bytes: want at least 16 random ones", path, len(secret))
	}
	return secret, nil
}

// newSecret makes a key. Where the directory cannot be written it lasts for this
// run alone.
func newSecret(path string) ([]byte, error) {
	secret := []byte(hex.EncodeToString(randomBytes(32)))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return secret, nil //nolint:nilerr // the probe reports a directory that cannot be written
	}
	_, err = f.Write(secret)
	return secret, errors.Join(err, f.Close())
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// watch keeps live true: it probes until the backend answers, and again whenever
// something made it doubtful.
func (sh *Sharer) watch(ctx context.Context) {
	for {
		wait := sh.connect(ctx)
		if wait == 0 {
			select {
			case <-ctx.Done():
				return
			case <-sh.reprobe:
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// connect probes the backend once and returns after how long to try again, 0 for
// not before something happens.
func (sh *Sharer) connect(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := sh.backend.Health(ctx); err != nil {
		sh.because("the backend is not ready")
		return probeEvery
	}
	lv, err := sh.probe(ctx)
	defer sh.tried.Store(true)
	if err != nil {
		if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
			sh.log.Warn().Err(err).Msg("nothing is shared: requests pass through")
		}
		sh.because(err.Error())
		return reprobeAfter
	}
	sh.mismatches.Store(0)
	sh.live.Store(lv)
	sh.metrics.Sharing.Set(1)
	sh.gauges(lv)
	sh.announce(lv)
	sh.running.Go(func() { sh.keepIndexed(lv) })
	if share := sh.cfg.Store.Rehearse; share > 0 {
		sh.running.Go(func() { sh.keepRehearsing(lv, share) })
	}
	return 0
}

func (sh *Sharer) because(why string) { sh.whyNot.Store(&why) }

// settled reports whether there is nothing to wait for before requests come: an
// early one would leave no reference.
func (sh *Sharer) settled() bool { return sh.stop == nil || sh.tried.Load() }

// Ready returns nil once the backend was probed, and else why nothing is shared.
func (sh *Sharer) Ready() error {
	if sh.live.Load() != nil {
		return nil
	}
	if why := sh.whyNot.Load(); why != nil {
		return errors.New(*why)
	}
	return errors.New("no slot directory is configured")
}

// probe tries out the backend and builds what sharing needs.
func (sh *Sharer) probe(ctx context.Context) (*live, error) {
	props, err := sh.backend.Props(ctx)
	if err != nil {
		return nil, err
	}
	lv := &live{model: sh.openModel(props)}
	lv.ctx, lv.cancel = context.WithCancel(context.Background())
	prober := bridge.Prober{Backend: sh.backend, Props: props, Dir: sh.cfg.Backend.SlotDir, Model: lv.model, Kernels: sh.kernels}
	if lv.probed, err = prober.Probe(ctx); err == nil {
		err = sh.chooseWay(ctx, lv, prober)
	}
	if err != nil {
		lv.close()
		return nil, err
	}
	for i := range lv.probed.Props.Slots {
		if err := sh.backend.Erase(ctx, i); err != nil {
			lv.close()
			return nil, err
		}
	}
	lv.signer = sh.signer(lv.model)
	lv.key = digest(lv.probed.Key, lv.signer.Key())
	layout := &lv.probed.Layout
	if err := sh.openStore(lv); err != nil {
		lv.close()
		return nil, err
	}
	lv.store.OnDrop(func(m bridge.Meta, reason string) { sh.dropped(lv, m, reason) })
	lv.filler = &bridge.Filler{Backend: sh.backend, Kernels: sh.kernels, Store: lv.store, Layout: layout, RoPE: lv.probed.RoPE}
	lv.tokens = tokenizer{sh.backend, lv.model}
	sh.loadCalibration(lv)
	lv.gate = newGate()
	lv.slots = newSlots(lv.probed.Props.Slots)
	lv.costs = newCosts(lv.probed.TokenMS, layout.BytesPerToken())
	return lv, nil
}

// openStore opens the reference store of the backend's layout.
func (sh *Sharer) openStore(lv *live) (err error) {
	compression, err := bridge.ParseCompression(sh.cfg.Store.Compress)
	if err != nil {
		return err // validated with the configuration
	}
	layout := &lv.probed.Layout
	lv.stored = layout
	o := bridge.StoreOptions{Budget: sh.cfg.Store.Budget, Model: lv.key, Kernels: sh.kernels, Threads: sh.threads(),
		Check: func(s *bridge.State) error { return layout.Takes(&s.Layout) }}
	if compression != nil {
		lv.stored = compression.Layout(layout)
		o.Stored = lv.stored
	}
	lv.store, err = bridge.OpenStore(sh.cfg.Backend.SlotDir, o)
	return err
}

func (lv *live) close() {
	lv.cancel()
	if lv.store != nil {
		_ = lv.store.Close()
	}
	if lv.model != nil {
		_ = lv.model.Close()
	}
}

// retire closes what is no longer live, once the last request has let go of it.
func (lv *live) retire() {
	lv.users.close()
	lv.cancel()
	_ = lv.users.wait(context.Background())
	lv.close()
}

// openModel reads the model file that is configured, or that the backend names.
func (sh *Sharer) openModel(props bridge.Props) *bridge.Model {
	m, err := bridge.OpenModel(cmp.Or(sh.cfg.Backend.Model, props.ModelPath))
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

// threads to compose with: the backend stands still meanwhile, so its CPUs are
// free, but a pod's limits may say otherwise.
func (sh *Sharer) threads() int {
	if n := sh.cfg.Backend.Threads; n > 0 {
		return n
	}
	return min(8, runtime.GOMAXPROCS(0))
}

func (sh *Sharer) announce(lv *live) {
	way, whyNot := "agent", lv.whyNoAgent.Load()
	if whyNot != nil {
		way = "slot"
	}
	e := sh.log.Info().Str("way", way).Str("build", lv.probed.Props.Build).Int("slots", lv.probed.Props.Slots).
		Int("context", lv.probed.Props.Context).Str("kernels", sh.kernels.Name()).
		Int64("kv_bytes_per_token", lv.probed.Layout.BytesPerToken()).Int64("stored_bytes_per_token", lv.stored.BytesPerToken()).Bool("volatile_slots", lv.probed.Volatile).
		Int("references", lv.store.Stats().References).Bool("identity_matching", lv.signer.Identity())
	if whyNot != nil {
		e = e.Str("no_agent", *whyNot)
	}
	if lv.probed.Why != "" {
		e = e.Str("keys_not_movable", lv.probed.Why)
	}
	e.Msg("sharing")
	sh.warnUncalibrated(lv)
	if lv.probed.Volatile {
		sh.log.Warn().Msg("the backend empties idle slots whenever a request starts: start llama-server with --no-cache-idle-slots, or requests that are shared wait for one another")
	}
}

// doubt turns sharing off until the backend is probed again.
func (sh *Sharer) doubt(lv *live, why string, after time.Duration) {
	if !sh.live.CompareAndSwap(lv, nil) {
		return
	}
	sh.because(why)
	sh.metrics.Sharing.Set(0)
	sh.log.Warn().Str("why", why).Msg("sharing is off until the backend is probed again")
	sh.running.Go(func() {
		lv.retire()
		select {
		case <-sh.stopped:
			return
		case <-time.After(after):
		}
		select {
		case sh.reprobe <- struct{}{}:
		default:
		}
	})
}

// indexPoll is how often the index is asked whether it lost anything.
const indexPoll = 5 * time.Second

// keepIndexed keeps the store's references in the index, which may be new, or be
// wiped, or forget by its TTL.
func (sh *Sharer) keepIndexed(lv *live) {
	sh.index.Watch(lv.ctx, indexPoll, func(ctx context.Context) error {
		err := sh.reindex(ctx, lv)
		if err != nil && ctx.Err() == nil {
			sh.metrics.IndexErrors.Inc()
			sh.log.Warn().Err(err).Msg("the index could not be rebuilt yet")
		}
		return err
	})
}

// reindex puts all references into the index.
func (sh *Sharer) reindex(ctx context.Context, lv *live) error {
	if !lv.users.begin() {
		return nil // being closed
	}
	defer lv.users.end()
	for _, m := range lv.store.All() {
		tokens, copied, err := lv.store.Tokens(m.ID)
		if err != nil {
			continue // dropped meanwhile
		}
		fp := lv.signer.Fingerprint(tokens[:len(tokens)-copied.Len])
		if err := sh.index.Add(ctx, lv.scope(m.Tenant), m.ID, fp); err != nil {
			return err
		}
	}
	return nil
}

func (lv *live) scope(tenant string) matcher.Scope {
	return matcher.Scope{Tenant: tenant, Model: lv.key}
}

// dropped counts a reference that left the store and takes it out of the index.
func (sh *Sharer) dropped(lv *live, m bridge.Meta, reason string) {
	sh.metrics.Dropped.WithLabelValues(reason).Inc()
	sh.gauges(lv)
	sh.forget(m)
}

// forget takes a dropped reference out of the index.
func (sh *Sharer) forget(m bridge.Meta) {
	if err := sh.index.Remove(context.Background(), matcher.Scope{Tenant: m.Tenant, Model: m.Model}, m.ID); err != nil {
		sh.metrics.IndexErrors.Inc()
	}
}

func (sh *Sharer) gauges(lv *live) {
	st := lv.store.Stats()
	sh.metrics.StoreBytes.Set(float64(st.Bytes))
	sh.metrics.StoreReferences.Set(float64(st.References))
}

// Observe has f called with everything known of each generation request that is
// over. For measuring: reports hold token ids.
func (sh *Sharer) Observe(f func(Report)) { sh.observer.Store(&f) }

// Drain waits until what was answered has been captured.
func (sh *Sharer) Drain(ctx context.Context) error {
	return sh.active.wait(ctx)
}

// Forget drops all references and empties all slots.
func (sh *Sharer) Forget(ctx context.Context) error {
	lv := sh.live.Load()
	if lv == nil {
		return sh.Ready()
	}
	for _, m := range lv.store.All() {
		lv.store.Drop(m.ID, "forgotten")
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
	lv.slots.forget()
	sh.gauges(lv)
	return nil
}
