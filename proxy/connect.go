package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
)

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
)

// watch finds out about the backend. Only the goroutine of run uses its fields.
type watch struct {
	sh      *Sharer
	refused refusal
	silence string // why the backend did not answer the last time; "" if it did
	taken   int    // how often in a row others' requests spoilt the probe
	// probeRun is in the names of the probe's files, so that these are always the same.
	probeRun string
	bookFrom time.Time // when to try again to begin a book (keepBook)
}

// run keeps the sharer's live true: it probes until the backend answers, and again whenever
// something made it doubtful.
func (w *watch) run(ctx context.Context) {
	for {
		wait := w.connect(ctx)
		if wait == 0 {
			select {
			case <-ctx.Done():
				return
			case <-w.sh.reprobe:
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
func (w *watch) connect(ctx context.Context) time.Duration {
	sh := w.sh
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if !w.answers(ctx) {
		return probeEvery
	}
	defer sh.tried.Store(true)
	props, err := sh.backend.Look(ctx)
	model := bridge.ModelStamp(sh.modelPath(props))
	switch {
	case props.Sleeping:
		sh.because(asleep)
		return probeEvery
	case w.refused.stands(props, model):
		w.renewBook(ctx, props)
		return probeEvery
	case w.refused.same(props, model) && !w.refused.overdue() && w.bookInUse(), !w.endBook(ctx):
		return probeEvery
	case err != nil:
		return w.failed(ctx, err, props, model)
	case sh.breaks.lately(buildAndModel(props)):
		sh.because(backendFatal)
		return w.refuse(ctx, props, model, maxReprobe)
	}
	sh.noBook.Store(nil)
	doubts := sh.doubts.Load()
	defer sh.hold.end()
	lv, err := w.probe(ctx, props)
	if err != nil {
		if brokeOff(err) {
			sh.broken(props)
		}
		return w.failed(ctx, err, props, model)
	}
	w.taken, w.refused = 0, refusal{}
	sh.goLive(lv, doubts)
	return 0
}

// failed notes why the backend could not be probed, refuses one that is there, and returns after
// how long to try again.
func (w *watch) failed(ctx context.Context, err error, props bridge.Props, model string) time.Duration {
	w.sh.because(err.Error())
	taken := errors.Is(err, bridge.ErrTaken)
	if !errors.Is(err, context.Canceled) && (!taken || w.taken == 0) {
		w.sh.log.Warn().Err(err).Msg("nothing is shared: requests pass through")
	}
	switch {
	case taken:
		w.taken++
		return probeEvery << min(w.taken-1, maxTakenShift)
	case bridge.Away(err), errors.Is(err, bridge.ErrLost), brokeOff(err):
		return probeEvery
	case errors.Is(err, context.DeadlineExceeded):
		return reprobeAfter
	}
	most := maxReprobe
	if failed := new(bridge.BackendError); errors.As(err, &failed) {
		most = maxReask
	}
	return w.refuse(ctx, props, model, most)
}

// refuse leaves the backend alone for a while, for most at most, and begins a book of it. It
// returns after how long to look at it again.
func (w *watch) refuse(ctx context.Context, props bridge.Props, model string, most time.Duration) time.Duration {
	w.refused.again(props, model, most)
	w.keepBook(ctx, props)
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
