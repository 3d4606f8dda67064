package matcher

import (
	"sync"
	"time"
)

// The rest after a failure doubles from restMin to restMax.
const (
	restMin = 100 * time.Millisecond
	restMax = 3 * time.Second
)

// breaker keeps requests from waiting for a Redis that does not answer: after a
// failure one caller at a time is let through to try, at growing intervals.
type breaker struct {
	mu     sync.Mutex
	rest   time.Duration
	until  time.Time
	failed time.Time
}

// allow reports whether Redis may be asked now.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rest == 0 {
		return true
	}
	if now.Before(b.until) {
		return false
	}
	b.until = now.Add(b.rest) // this caller tries, the others go on resting
	return true
}

// succeeded ends the rest.
func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest = 0
}

// fail takes the failure of what began at start. What was under way when the
// last failure was noted belongs to the same outage and counts once.
func (b *breaker) fail(start, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if start.Before(b.failed) {
		return
	}
	b.rest = min(max(2*b.rest, restMin), restMax)
	b.until, b.failed = now.Add(b.rest), now
}
