package matcher

import (
	"context"
	"errors"
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
	mu    sync.Mutex
	rest  time.Duration
	until time.Time
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

// report takes the outcome. A caller that went away says nothing about Redis.
func (b *breaker) report(now time.Time, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.rest = 0
		return
	}
	b.rest = min(max(2*b.rest, restMin), restMax)
	b.until = now.Add(b.rest)
}
