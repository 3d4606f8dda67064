package matcher

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

const (
	// maxForgotten is how many names the embedded Redis may know besides twice as many as
	// it holds: some 13 MB.
	maxForgotten = 1 << 17
	// copiedAtOnce is the number of keys that are copied by one pipeline.
	copiedAtOnce = 512
)

// growth keeps an embedded Redis from growing for ever: miniredis remembers the name of
// each key that it ever had, some 100 bytes, and each reference has hundreds of its own.
type growth struct {
	copying sync.RWMutex // held for reading by who adds a reference
	names   atomic.Int64 // given since the last copy, at most, and those of the copy
	spare   int          // the database that was copied to last
}

// adding is called before a reference with that many names is added, and returns what is
// called after. It waits while the database is copied. A Redis elsewhere has no growth.
func (e *embedded) adding(names int) (done func()) {
	if e == nil {
		return func() {}
	}
	e.copying.RLock()
	e.names.Add(int64(names))
	return e.copying.RUnlock
}

// shed has the embedded Redis forget the names of what is gone, where they are many: what
// is there is copied to another database, which takes the place of the first one. A second
// does for 120,000 keys. Look-ups go on meanwhile. What they count is lost, and what is removed
// may stay until it expires.
func (x *Index) shed(ctx context.Context) error {
	e := x.embedded
	if e == nil || e.names.Load() < maxForgotten {
		return nil
	}
	e.copying.Lock()
	defer e.copying.Unlock()
	living, err := x.db.DBSize(ctx).Result()
	if err != nil || e.names.Load()-2*living < maxForgotten {
		return err
	}
	e.spare++
	defer e.drop(e.spare)
	if err := x.copy(ctx, e.spare); err != nil {
		return err
	}
	e.SwapDB(0, e.spare)
	e.names.Store(living)
	return nil
}

// copy copies all keys, with the time that they have left, to another database.
func (x *Index) copy(ctx context.Context, to int) error {
	for some := range slices.Chunk(x.embedded.Keys(), copiedAtOnce) {
		_, err := x.db.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, key := range some {
				p.Copy(ctx, key, key, to, false)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// drop lets go of a database and of what it remembers. It must not be used again.
func (e *embedded) drop(database int) {
	db := e.DB(database)
	e.Lock()
	defer e.Unlock()
	*db = miniredis.RedisDB{}
}
