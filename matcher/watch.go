package matcher

import (
	"context"
	"crypto/rand"
	"time"
)

// Watch calls rebuild whenever the index has lost what this process put there:
// at first, after Redis was wiped or came back empty, after an Add failed, and every
// half TTL, so that entries whose references still exist do not expire. rebuild Adds every
// reference; it is tried again where it fails. Watch looks every so often and
// returns when ctx ends.
func (x *Index) Watch(ctx context.Context, every time.Duration, rebuild func(context.Context) error) {
	marker := x.prefix + ":m:" + rand.Text()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		x.mend(ctx, marker, rebuild)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// mend rebuilds where the marker is gone or an Add was missed, and sets the marker
// afterwards.
func (x *Index) mend(ctx context.Context, marker string, rebuild func(context.Context) error) {
	there := false
	err := x.do(ctx, func(ctx context.Context) error {
		n, err := x.db.Exists(ctx, marker).Result()
		there = n > 0
		return err
	})
	if err != nil || (there && !x.missed.Load()) {
		return
	}
	x.missed.Store(false) // before: what fails from here on is missed again
	if rebuild(ctx) != nil {
		return
	}
	x.do(ctx, func(ctx context.Context) error { return x.db.Set(ctx, marker, 1, x.ttl/2).Err() })
}
