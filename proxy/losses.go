package proxy

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semsharekv/semsharekv/bridge"
)

// A backend that dies of what the sidecar asks of it is started again by whatever runs it, and
// would die of it again.

const (
	// maxLosses of the backend end what it was lost at, if each came within lossMemory of the one
	// before: some are restarts that have nothing to do with it.
	maxLosses  = 3
	lossMemory = time.Hour
	// youngFor is how long after its probe a backend that is lost during a fill counts as lost by
	// it: one that took fills for longer was more likely stopped by others.
	youngFor = 10 * time.Minute
)

// backendFatal is why a backend is not tried out.
const backendFatal = "the backend was lost again and again while it was tried out or slots were filled: it is left alone for an hour"

// brokeOff tells whether an error says that a backend, which had answered shortly before, was
// lost at a request in which the agent had no part. It is refused where the request was sent
// once more.
func brokeOff(err error) bool {
	return isAny(err, io.EOF, io.ErrUnexpectedEOF, unix.ECONNRESET, unix.ECONNREFUSED) && !isAny(err, bridge.ErrLost, bridge.ErrUnsent)
}

func isAny(err error, kinds ...error) bool {
	return slices.ContainsFunc(kinds, func(kind error) bool { return errors.Is(err, kind) })
}

// broken counts that the backend was lost at work for the sidecar.
func (sh *Sharer) broken(props bridge.Props) {
	with := buildAndModel(props)
	if sh.breaks.add(with); sh.breaks.lately(with) {
		sh.log.Error().Str("build", props.Build).Msg("the backend was lost again and again at what the sidecar asked of it: it is left alone for an hour")
	}
}

// fillBroke counts a fill with which the backend was lost: once, however many were under way.
func (sh *Sharer) fillBroke(lv *live) {
	if time.Since(lv.since) < youngFor && lv.lost.CompareAndSwap(false, true) {
		sh.broken(lv.probed.Props)
	}
}

func buildAndModel(p bridge.Props) string { return p.Build + " " + p.ModelPath }

// losses counts how often a backend was lost, each time within lossMemory.
type losses struct {
	mu   sync.Mutex
	with string // its build and model
	n    int
	last time.Time
}

func (l *losses) add(with string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.with != with || time.Since(l.last) > lossMemory {
		l.with, l.n = with, 0
	}
	l.n++
	l.last = time.Now()
}

// many: it was lost so often that it is not to be risked any more.
func (l *losses) many(with string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.with == with && l.n >= maxLosses
}

// lately: many, and the last time within lossMemory.
func (l *losses) lately(with string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.with == with && l.n >= maxLosses && time.Since(l.last) <= lossMemory
}
