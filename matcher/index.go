package matcher

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// maxMembers bounds how many references one key lists; the last used stay. What
	// more of them share tells little.
	maxMembers = 16
	// leastWriteTimeout is the least timeout of what no request waits for: writing, and
	// connecting ahead of look-ups. A reference takes some thousand commands.
	leastWriteTimeout = 2 * time.Second
)

// Scope is what never shares with anything outside of it. Tenant and Model are hex
// digests. Store is an id of where the references are kept: to others, which cannot
// read them, they would only be in the way.
type Scope struct{ Tenant, Model, Store string }

// Candidate is a reference that shares keys with a target. Votes is the rarity-
// weighted share of the target's keys that it holds, 0 to 1.
type Candidate struct {
	ID    string
	Votes float64
}

// Found is what a look-up brings back.
type Found struct {
	Candidates []Candidate // most votes first
	Seen       int         // how often a prompt like it was looked up before, roughly
	References int         // how many references the index holds in this scope
}

// ErrResting is returned without asking Redis, for a short while after it
// failed, so that a dead Redis costs requests nothing.
var ErrResting = errors.New("index: Redis failed a moment ago, not asked")

// IndexOptions say where the index is and how it behaves. All but URL are required.
type IndexOptions struct {
	// URL is redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://,
	// redis+cluster:// or rediss+cluster://; empty means inside this process.
	URL     string
	Prefix  string        // of every key; a colon at its end may be left out
	Secret  []byte        // of the HMAC that keys go through
	TTL     time.Duration // of entries
	Timeout time.Duration // of one look-up; embedded at least a second
}

// Index finds earlier prompts by their fingerprints. It holds no prompt text
// and no token: keys are HMAC-SHA256 values over tenant, model and shingle hash.
type Index struct {
	db       redis.UniversalClient
	close    func() error
	prefix   string
	secret   []byte
	ttl      time.Duration
	timeout  time.Duration
	rest     breaker
	embedded *embedded // nil where another process is asked
	held     held
	now      func() time.Time
}

// OpenIndex connects; it does not wait for Redis to answer.
func OpenIndex(o IndexOptions) (*Index, error) {
	if len(o.Secret) == 0 {
		return nil, errors.New("index: no secret: want at least 16 random bytes")
	}
	x := &Index{prefix: strings.TrimSuffix(o.Prefix, ":"), secret: slices.Clone(o.Secret), ttl: o.TTL, timeout: o.Timeout, now: time.Now}
	if o.URL == "" {
		// It answers unless the CPUs are taken; the caller's own budget bounds that.
		x.timeout = max(x.timeout, embeddedTimeout)
		x.embedded, x.db, x.close = openEmbedded(x.timeout, sweepEvery(x.ttl))
		return x, nil
	}
	var err error
	if x.db, x.close, err = openRedis(o.URL, x.timeout); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	boundAnswers(x.db)
	return x, nil
}

// Close ends all connections.
func (x *Index) Close() error { return x.close() }

// Ping asks whether the index answers, be it by a connection that is yet to be made.
func (x *Index) Ping(ctx context.Context) error { return x.try(ctx, leastWriteTimeout, x.ping) }

// Find returns the references that share the most with the fingerprint, at most
// limit, in one pipelined round trip, and counts the look-up. A Redis that takes no
// writes is asked all the same; nothing is counted then.
func (x *Index) Find(ctx context.Context, sc Scope, fp Fingerprint, limit int) (Found, error) {
	if len(fp.Keys) == 0 {
		return Found{}, nil
	}
	k := x.keys(sc)
	var lists listCmds
	var seen seenCmds
	err := x.do(ctx, x.timeout, func(ctx context.Context) error {
		_, err := x.db.Pipelined(ctx, func(p redis.Pipeliner) error {
			lists = k.ask(ctx, p, fp.Keys)
			seen = x.count(ctx, p, sc, fp)
			return nil
		})
		if refused(seen.err()) {
			return lists.err()
		}
		return err
	})
	if err != nil {
		return Found{}, err
	}
	f := Found{References: int(lists.references.Val()), Seen: seen.before()}
	f.Candidates = rank(lists.keys, f.References, limit)
	return f, nil
}

// listCmds ask which references each of some keys lists, the last used first, and how many
// there are in all.
type listCmds struct {
	keys       []*redis.StringSliceCmd
	references *redis.IntCmd
}

func (k *scopeKeys) ask(ctx context.Context, p redis.Pipeliner, keys []uint64) (c listCmds) {
	for _, key := range keys {
		c.keys = append(c.keys, p.ZRevRange(ctx, k.posting(key), 0, maxMembers-1))
	}
	c.references = p.ZCard(ctx, k.references())
	return c
}

// err is the first error.
func (c listCmds) err() error { return cmp.Or(firstError(c.keys), c.references.Err()) }

// firstError is that of the first command that failed.
func firstError[C redis.Cmder](cmds []C) error {
	for _, c := range cmds {
		if err := c.Err(); err != nil {
			return err
		}
	}
	return nil
}

// Add makes a reference findable, or refreshes it. Where more have a key than are listed,
// those stay that were used last.
func (x *Index) Add(ctx context.Context, sc Scope, id string, fp Fingerprint, used time.Time) error {
	k := x.keys(sc)
	now := x.now()
	score, expired := x.score(used, now), strconv.FormatInt(now.Add(-x.ttl).UnixMilli(), 10)
	noted := x.held.adding(id)
	defer x.embedded.adding(1 + len(fp.Keys))()
	err := x.pipe(ctx, leastWriteTimeout, func(ctx context.Context, p redis.Pipeliner) {
		blob := make([]byte, 0, 8*len(fp.Keys))
		for _, key := range fp.Keys {
			name := k.posting(key)
			p.ZAdd(ctx, name, redis.Z{Score: score, Member: id})
			p.ZRemRangeByScore(ctx, name, "-inf", expired)
			p.ZRemRangeByRank(ctx, name, 0, -maxMembers-1)
			p.Expire(ctx, name, x.ttl)
			blob = binary.LittleEndian.AppendUint64(blob, key)
		}
		// The entry remembers the keys, so that Remove needs no prompt.
		p.Set(ctx, k.entry(id), k.seal(id, blob), x.ttl)
		p.ZAdd(ctx, k.references(), redis.Z{Score: score, Member: id})
		p.ZRemRangeByScore(ctx, k.references(), "-inf", expired)
		p.Expire(ctx, k.references(), x.ttl)
	})
	if err == nil {
		noted()
	}
	return err
}

// score orders a list by last use. Entries expire by it too, and are refreshed every half
// TTL: so none is a quarter old to begin with.
func (x *Index) score(used, now time.Time) float64 {
	oldest := now.Add(-x.ttl / 4)
	return float64(min(max(used.UnixMilli(), oldest.UnixMilli()), now.UnixMilli()))
}

// Remove forgets a reference. Removing an unknown one is no error. It has no more time
// than a look-up, since requests may wait for it: what it leaves names nothing, and
// expires.
func (x *Index) Remove(ctx context.Context, sc Scope, id string) error {
	x.held.drop(id)
	fp, err := x.entry(ctx, sc, id)
	if err != nil {
		return err
	}
	k := x.keys(sc)
	return x.pipe(ctx, x.timeout, func(ctx context.Context, p redis.Pipeliner) {
		for _, key := range fp.Keys {
			p.ZRem(ctx, k.posting(key), id)
		}
		p.Del(ctx, k.entry(id))
		p.ZRem(ctx, k.references(), id)
	})
}

// entry reads back the fingerprint that a reference was added with.
func (x *Index) entry(ctx context.Context, sc Scope, id string) (Fingerprint, error) {
	k := x.keys(sc)
	var got string
	err := x.do(ctx, x.timeout, func(ctx context.Context) error {
		var err error
		got, err = x.db.Get(ctx, k.entry(id)).Result()
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	if err != nil {
		return Fingerprint{}, err
	}
	blob := k.seal(id, []byte(got))
	var fp Fingerprint
	for ; len(blob) >= 8 && len(fp.Keys) < maxKeys; blob = blob[8:] {
		fp.Keys = append(fp.Keys, binary.LittleEndian.Uint64(blob))
	}
	return fp, nil
}

// pipe sends commands in one round trip and returns the first error.
func (x *Index) pipe(ctx context.Context, timeout time.Duration, fill func(context.Context, redis.Pipeliner)) error {
	return x.do(ctx, timeout, func(ctx context.Context) error {
		_, err := x.db.Pipelined(ctx, func(p redis.Pipeliner) error {
			fill(ctx, p)
			return nil
		})
		return err
	})
}

// do tries an operation unless Redis failed a moment ago.
func (x *Index) do(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	if !x.rest.allow(time.Now()) {
		return ErrResting
	}
	return x.try(ctx, timeout, f)
}

// try bounds an operation, by a look-up's timeout at least, and keeps the breaker
// informed.
func (x *Index) try(parent context.Context, timeout time.Duration, f func(context.Context) error) error {
	timeout = max(timeout, x.timeout)
	start := time.Now()
	ctx, cancel := context.WithTimeout(parent, timeout)
	defer cancel()
	err := f(ctx)
	now := time.Now()
	took := now.Sub(start)
	switch {
	case err == nil:
		if took <= x.timeout { // what took longer does not say that a look-up would do
			x.rest.succeeded()
		}
		return nil
	case x.embedded != nil: // it has no outages to wait out
	case refused(err): // it answers
	case parent.Err() != nil && took < timeout/2: // so little time says nothing about Redis
	default:
		x.rest.fail(start, now)
	}
	return fmt.Errorf("index: %w", err)
}

// refused tells Redis's refusals of some commands, mostly of writes: no memory left, a
// replica, no rights, no room on its disk. It may well do the others.
func refused(err error) bool {
	return redis.IsOOMError(err) || redis.IsReadOnlyError(err) || redis.IsPermissionError(err) ||
		redis.IsNoReplicasError(err) || redis.HasErrorPrefix(err, "MISCONF ")
}
