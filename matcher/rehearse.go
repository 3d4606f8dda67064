package matcher

import (
	"context"
	"crypto/rand"

	"github.com/redis/go-redis/v9"
)

// Rehearse does what the look-up of a long prompt does and within the same time, but
// asks for what is not there, and counts nothing. Ping makes the connection, as Watch
// does for requests.
func (x *Index) Rehearse(ctx context.Context) error {
	k := x.keys(Scope{Store: rand.Text()})
	return x.pipe(ctx, x.timeout, func(ctx context.Context, p redis.Pipeliner) {
		keys := make([]uint64, maxKeys)
		for i := range keys {
			keys[i] = uint64(i)
		}
		k.ask(ctx, p, keys)
	})
}

// RehearseWriting writes what references and look-ups write, to where nobody looks, and
// removes it; what it does not get to remove expires within the TTL.
func (x *Index) RehearseWriting(ctx context.Context) error {
	sc, id := Scope{Store: rand.Text()}, "rehearsal"
	if err := x.Add(ctx, sc, id, Fingerprint{Keys: []uint64{0}}, x.now()); err != nil {
		return err
	}
	k := x.keys(sc)
	return x.pipe(ctx, leastWriteTimeout, func(ctx context.Context, p redis.Pipeliner) {
		p.ZRem(ctx, k.posting(0), id)
		p.ZRem(ctx, k.references(), id)
		p.HIncrBy(ctx, k.number('c', 0), "0", 1)
		p.Del(ctx, k.number('c', 0))
		p.Del(ctx, k.entry(id))
	})
}
