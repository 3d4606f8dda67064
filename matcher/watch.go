package matcher

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const (
	// warmConnections are kept ready for use. More look-ups at the same moment, each
	// of which takes a round trip or a few, are rare before a server that takes
	// seconds for a prompt.
	warmConnections = 4
	// restWhile is how many times as long as a reference took to be put back the next
	// one waits: a Redis that many use and that came back empty has a fifth of a
	// rebuild's time to give, and not all.
	restWhile = 4
)

// Kept is what Watch keeps in the index.
type Kept struct {
	List func() []string                     // the ids, the one to be put in first named first; asked at each look
	Add  func(context.Context, string) error // puts one in
	// Looked is told after each look what went wrong with it, or nil.
	Looked func(error)
}

// Watch keeps references in the index until ctx ends: every so often it puts in what is
// not there. Nothing is at first, after Redis was wiped or came back empty, and every
// half TTL, so that entries whose references still exist do not expire. Where one cannot
// be added it goes on behind that one the next time. Connections are kept ready by the
// way, since a look-up has no time to make one where Redis is far.
func (x *Index) Watch(ctx context.Context, every time.Duration, k Kept) {
	m := marker{name: x.prefix + ":m:" + rand.Text()}
	failed := ""
	for wait := time.Duration(0); pause(ctx, wait); {
		start, ids := time.Now(), k.List()
		err := x.warm(ctx)
		if err == nil {
			err = x.check(ctx, &m)
		}
		if err == nil {
			failed, err = x.put(ctx, behind(ids, failed), k.Add, start.Add(every))
		}
		if err == nil {
			err = x.shed(ctx)
		}
		if ctx.Err() == nil {
			k.Looked(err)
		}
		wait = every - time.Since(start)
	}
}

// marker is a key that goes when all that was put in goes, and by half TTL.
type marker struct {
	name string
	set  time.Time // by the wall clock, as scores are: it may go ahead of what TTLs count
}

// check forgets what was put in where the marker is gone, or should be, and sets it again.
// Whatever is lost from then on is noticed by it. It notices too where no writes are taken.
func (x *Index) check(ctx context.Context, m *marker) error {
	return x.do(ctx, leastWriteTimeout, func(ctx context.Context) error {
		var there *redis.IntCmd
		_, err := x.db.Pipelined(ctx, func(p redis.Pipeliner) error {
			// The write comes first: by the first one's refusal go-redis drops a connection to what
			// is no longer the master.
			p.Set(ctx, m.name+":w", 1, x.ttl/2)
			there = p.Exists(ctx, m.name)
			return nil
		})
		if refused(err) {
			return fmt.Errorf("it takes no writes, so that nothing new is found: %w", err)
		}
		now := x.now().Round(0)
		if err != nil || there.Val() > 0 && now.Sub(m.set) <= x.ttl/2 {
			return err
		}
		x.held.clear()
		m.set = now
		return x.db.Set(ctx, m.name, 1, x.ttl/2).Err()
	})
}

// put adds what is not there, one at least and others until the next look is due. It returns
// the id and the error of the one that failed, if one did.
func (x *Index) put(ctx context.Context, ids []string, add func(context.Context, string) error, due time.Time) (failed string, err error) {
	for _, id := range ids {
		if x.held.has(id) {
			continue
		}
		start := time.Now()
		if err := add(ctx, id); err != nil {
			return id, err
		}
		if x.embedded == nil && !pause(ctx, restWhile*time.Since(start)) || time.Now().After(due) {
			break
		}
	}
	return "", nil
}

// behind is ids in the same order, but begun behind last: one that fails every time
// holds up no other.
func behind(ids []string, last string) []string {
	i := slices.Index(ids, last) + 1
	return slices.Concat(ids[i:], ids[:i])
}

// pause waits and reports whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return ctx.Err() == nil
}

// warm makes connections, or sees that they live, and returns what one of them met. It asks
// also while Redis is given a rest, which ends where it answers.
func (x *Index) warm(ctx context.Context) error {
	if x.embedded != nil {
		return nil
	}
	var all errgroup.Group
	for range warmConnections {
		all.Go(func() error { return x.Ping(ctx) })
	}
	return all.Wait()
}

// ping asks Redis, or all nodes that look-ups go to.
func (x *Index) ping(ctx context.Context) error {
	if c, ok := x.db.(*redis.ClusterClient); ok {
		return c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return node.Ping(ctx).Err() })
	}
	return x.db.Ping(ctx).Err()
}

// held are the ids that were put into the index, as far as this process knows.
type held struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (h *held) has(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ids[id]
}

// adding returns what notes that id was put in, unless all was lost in between. Until
// then it counts as not there.
func (h *held) adding(id string) func() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ids == nil {
		h.ids = map[string]bool{}
	}
	ids := h.ids
	delete(ids, id)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		ids[id] = true
	}
}

func (h *held) drop(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ids, id)
}

func (h *held) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids = nil
}
