package matcher

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// How often prompts were asked for is counted in a table of fixed size, which all
// tenants and models of a store have in common: neither a flood of prompts nor one of
// tenants can grow it. Which counters are whose is under the scope's key. Nothing in it
// gives way to anything else; that many prompts make counters of others grow is seen in
// counters that have nothing to do with the prompt, and taken off.
const (
	// seenSamples keys of a prompt are counted; the count is the one that a third of
	// them reach.
	seenSamples = 16
	// seenCounters is the number of counters of a store and period.
	seenCounters = 1 << 16
	// seenPeriod is how long counters are added to; those of the period before
	// still count.
	seenPeriod = 6 * time.Hour
)

// seenCmds are the counters asked for in a pipeline: first the prompt's, then as many
// that have nothing to do with it.
type seenCmds struct {
	written []redis.Cmder
	periods [2]*redis.SliceCmd // this one and the one before
}

// err is the first error.
func (c seenCmds) err() error { return cmp.Or(firstError(c.written), firstError(c.periods[:])) }

// count adds one to the counters of a prompt's first keys (the smallest hashes:
// similar prompts agree on most of them) and reads them.
func (x *Index) count(ctx context.Context, p redis.Pipeliner, sc Scope, fp Fingerprint) seenCmds {
	k, table := x.keys(sc), x.keys(Scope{Store: sc.Store})
	period := uint64(x.now().Unix() / int64(seenPeriod/time.Second))
	now, last := table.number('c', period), table.number('c', period-1)
	keys := fp.Keys[:min(len(fp.Keys), seenSamples)]
	fields := make([]string, 0, 2*len(keys))
	var c seenCmds
	for _, key := range keys {
		f := k.counter('f', key)
		c.written = append(c.written, p.HIncrBy(ctx, now, f, 1))
		fields = append(fields, f)
	}
	c.written = append(c.written, p.Expire(ctx, now, 2*seenPeriod))
	for _, key := range keys {
		fields = append(fields, k.counter('o', key))
	}
	c.periods = [2]*redis.SliceCmd{p.HMGet(ctx, now, fields...), p.HMGet(ctx, last, fields...)}
	return c
}

// before is how often a prompt like it was counted before, 0 where it could not be counted.
func (c seenCmds) before() int {
	if c.err() != nil {
		return 0
	}
	counts := make([]int, len(c.periods[0].Val()))
	for _, period := range c.periods {
		for i, v := range period.Val() {
			if s, ok := v.(string); ok {
				n, _ := strconv.Atoi(s)
				counts[i] += n
			}
		}
	}
	n := len(counts) / 2
	return max(0, reached(counts[:n])-reached(counts[n:])-1)
}

// reached is the count that at least a third of the counters reach. It sorts them.
func reached(counts []int) int {
	if len(counts) == 0 {
		return 0
	}
	slices.Sort(counts)
	return counts[len(counts)-1-len(counts)/3]
}

// counter is a key's field in the table, one of seenCounters. Without the secret a
// guessed prompt could be looked up there.
func (k *scopeKeys) counter(kind byte, key uint64) string {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], key)
	k.mac.Reset()
	k.mac.Write([]byte{kind})
	k.mac.Write(b[:])
	var sum [sha256.Size]byte
	return strconv.FormatUint(binary.LittleEndian.Uint64(k.mac.Sum(sum[:0]))%seenCounters, 36)
}
