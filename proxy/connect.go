package proxy

import (
	"cmp"
	"context"
	"errors"
	"io"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

// What makes the sharer doubt the backend: strikes (fills in a row that it did not take),
// failures of the agent (way.go) and losses of the server by recipes, flaps (another server
// within a minute, again and again, restart.go), and doubts, which count how often it went
// away, so that a probe meanwhile is not believed.

const (
	// probeTimeout bounds one try at finding out about the backend; a slot that
	// is at work makes it wait.
	probeTimeout = 2 * time.Minute
	// probeEvery is how long to wait after a try that failed because the backend
	// was not there, reprobeAfter after one that was refused or went wrong, the first time.
	probeEvery   = time.Second
	reprobeAfter = time.Minute
	// maxTakenShift bounds how often that is doubled where others' requests spoil the probe.
	maxTakenShift = 4
	// maxStrikes in a row turn sharing off until the backend is probed again.
	maxStrikes = 3
)

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
	if !sh.answers(ctx) {
		return probeEvery
	}
	defer sh.tried.Store(true)
	props, err := sh.backend.Look(ctx)
	model := bridge.ModelStamp(cmp.Or(sh.cfg.Backend.Model, props.ModelPath))
	switch {
	case props.Sleeping:
		sh.because(asleep)
		return probeEvery
	case sh.refused.stands(props, model):
		sh.renewBook(ctx, props)
		return probeEvery
	case !sh.endBook(ctx):
		return probeEvery
	case err != nil:
		return sh.failed(ctx, err, props, model)
	}
	doubts := sh.doubts.Load()
	defer sh.hold.end()
	lv, err := sh.probe(ctx, props)
	if err != nil {
		return sh.failed(ctx, err, props, model)
	}
	sh.taken, sh.refused = 0, refusal{}
	sh.strikes.Store(0)
	lv.since = time.Now()
	sh.uncleared.Store(&lv.probed.Props)
	sh.disinherit(lv.slots)
	sh.live.Store(lv)
	if sh.ended() && sh.live.CompareAndSwap(lv, nil) { // Close came before and did not see it
		lv.retire()
		return 0
	}
	sh.metrics.Sharing.Set(1)
	sh.gauges(lv)
	sh.announce(lv)
	sh.running.Go(func() { sh.keepIndexed(lv) })
	sh.running.Go(func() { sh.attend(lv) })
	switch { // while it was probed
	case sh.doubts.Load() != doubts:
		sh.doubt(lv, "the backend went away while it was probed", probeEvery)
	case sh.scales.set.Load() != lv.scales:
		sh.doubt(lv, scalesSet, 0)
	}
	return 0
}

// failed notes why the backend could not be probed, begins a book of one that is refused, and
// returns after how long to try again.
func (sh *Sharer) failed(ctx context.Context, err error, props bridge.Props, model string) time.Duration {
	sh.because(err.Error())
	taken := errors.Is(err, bridge.ErrTaken)
	if !errors.Is(err, context.Canceled) && (!taken || sh.taken == 0) {
		sh.log.Warn().Err(err).Msg("nothing is shared: requests pass through")
	}
	switch {
	case taken:
		sh.taken++
		return probeEvery << min(sh.taken-1, maxTakenShift)
	case bridge.Away(err), errors.Is(err, bridge.ErrLost), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return probeEvery
	case errors.Is(err, context.DeadlineExceeded):
		return reprobeAfter
	}
	most := maxReprobe
	if failed := new(bridge.BackendError); errors.As(err, &failed) {
		most = maxReask
	}
	sh.refused.again(props, model, most)
	sh.keepBook(ctx, props)
	return probeEvery
}

func (sh *Sharer) ended() bool {
	select {
	case <-sh.stopped:
		return true
	default:
		return false
	}
}

func (sh *Sharer) because(why string) { sh.whyNot.Store(&why) }

// shares reports whether there is a slot directory, so that it keeps a book of slots.
func (sh *Sharer) shares() bool { return sh.stop != nil }

// triedOut reports whether there is nothing to wait for before requests come: an
// early one would leave no reference.
func (sh *Sharer) triedOut() bool { return !sh.shares() || sh.tried.Load() }

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

// doubt turns sharing off until the backend is probed again, at the earliest when all requests
// that run have ended: they hold slots by a book that the next one does not know.
func (sh *Sharer) doubt(lv *live, why string, after time.Duration) {
	if !sh.live.CompareAndSwap(lv, nil) {
		return
	}
	sh.because(why + " (requests that run are awaited before it is tried out again)")
	sh.metrics.Sharing.Set(0)
	sh.log.Warn().Str("why", why).Msg("sharing is off until the backend is probed again")
	sh.running.Go(func() {
		lv.retire()
		sh.because(why)
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

// notTaken is why fills that the backend failed end sharing.
const notTaken = "the backend repeatedly did not take what was filled in"

// strike counts a fill that failed, for why, and not by its own doing.
func (sh *Sharer) strike(lv *live, why string) {
	if sh.strikes.Add(1) >= maxStrikes {
		sh.doubt(lv, why, reprobeAfter)
	}
}

// mismatch counts a restore that the backend's cache_n did not confirm. Where another
// request may empty a slot at any time, or may have got this one, it says nothing of the
// backend.
func (d *decision) mismatch() {
	d.sh.metrics.Mismatches.Inc()
	if !d.lv.probed.Volatile && !d.overrun() {
		d.sh.strike(d.lv, notTaken)
	}
}
