package matcher

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// patient is the timeout of tests that are not about timeouts.
const patient = 10 * time.Second

var testScope = Scope{Tenant: "aa", Model: "bb"}

func openTest(t testing.TB, o IndexOptions) *Index {
	t.Helper()
	if o.Secret == nil {
		o.Secret = []byte("sixteen bytes ..")
	}
	o.Prefix, o.TTL, o.Timeout = cmp.Or(o.Prefix, "semsharekv"), cmp.Or(o.TTL, 24*time.Hour), cmp.Or(o.Timeout, patient)
	x, err := OpenIndex(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// noLeaks fails the test if goroutines are left after everything was closed.
func noLeaks(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
}

// everyIndex runs a test on the embedded Redis and on a real one.
func everyIndex(t *testing.T, f func(t *testing.T, x *Index)) {
	t.Run("embedded", func(t *testing.T) {
		noLeaks(t)
		f(t, openTest(t, IndexOptions{}))
	})
	t.Run("redis", func(t *testing.T) {
		noLeaks(t)
		f(t, openTest(t, IndexOptions{URL: lab.StartRedis(t).URL}))
	})
}

func mustAdd(t testing.TB, x *Index, sc Scope, id string, fp Fingerprint) {
	t.Helper()
	if err := x.Add(context.Background(), sc, id, fp, x.now()); err != nil {
		t.Fatal(err)
	}
}

func mustFind(t testing.TB, x *Index, sc Scope, fp Fingerprint) Found {
	t.Helper()
	f, err := x.Find(context.Background(), sc, fp, 8)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestIndexFindsWhatIsLike(t *testing.T) {
	s := testSigner(t, 1)
	everyIndex(t, func(t *testing.T, x *Index) {
		for i := range 40 {
			mustAdd(t, x, testScope, fmt.Sprint("r", i), s.Fingerprint(prose(uint64(i), 1500)))
		}
		f := func(name string, target []int32, want ...string) {
			t.Helper()
			got := mustFind(t, x, testScope, s.Fingerprint(target))
			if got.References != 40 {
				t.Errorf("%s: the index counts %d references, want 40", name, got.References)
			}
			var ids []string
			for _, c := range got.Candidates[:min(len(want), len(got.Candidates))] {
				ids = append(ids, c.ID)
			}
			slices.Sort(ids)
			if !slices.Equal(ids, want) {
				t.Errorf("%s: found %v, want %v first", name, got.Candidates, want)
			}
			for _, c := range got.Candidates[min(len(want), len(got.Candidates)):] {
				if c.Votes > .05 {
					t.Errorf("%s: %s has %.2f of the votes", name, c.ID, c.Votes)
				}
			}
		}
		f("identical", prose(7, 1500), "r7")
		f("edited", slices.Concat(prose(7, 1500)[:600], prose(99, 40), prose(7, 1500)[700:]), "r7")
		f("two documents joined", slices.Concat(prose(98, 500), prose(5, 1500), prose(3, 1500)), "r3", "r5")
		f("unrelated", prose(100, 1500))
	})
}

// TestIndexFindsWhatManyBeginLike: one system prompt is listed for its newest users alone.
func TestIndexFindsWhatManyBeginLike(t *testing.T) {
	const references = 100
	s := IdentitySigner(1)
	x := openTest(t, IndexOptions{})
	system := prose(1000, 800)
	start := time.Now()
	for i := range references {
		x.now = func() time.Time { return start.Add(time.Duration(i) * time.Second) }
		mustAdd(t, x, testScope, fmt.Sprint("r", i), s.Fingerprint(slices.Concat(system, prose(uint64(i), 300))))
	}
	for i := range 10 {
		target := slices.Concat(system, everyNinth(prose(uint64(i), 300)))
		got := mustFind(t, x, testScope, s.Fingerprint(target)).Candidates
		if want := fmt.Sprint("r", i); got[0].ID != want {
			t.Errorf("found %v, want %s first", got, want)
		}
	}
}

func TestIndexRanksRealTexts(t *testing.T) {
	s := IdentitySigner(1)
	x := openTest(t, IndexOptions{})
	pairs := realPairs(t)
	for _, p := range pairs {
		mustAdd(t, x, testScope, p.ID, s.Fingerprint(words(p.Reference)))
	}
	for _, p := range pairs {
		got := mustFind(t, x, testScope, s.Fingerprint(words(p.Target))).Candidates
		i := slices.IndexFunc(got, func(c Candidate) bool { return c.ID == p.ID && c.Votes > .1 })
		if found := i >= 0; found == (p.Group == "unrelated") {
			t.Errorf("%s (%s): found is %v among %v", p.ID, p.Group, found, got)
		}
	}
}

func TestIndexKeepsScopesApart(t *testing.T) {
	s := testSigner(t, 1)
	fp := s.Fingerprint(prose(1, 500))
	everyIndex(t, func(t *testing.T, x *Index) {
		mustAdd(t, x, testScope, "mine", fp)
		for _, sc := range []Scope{{"ab", "bb", ""}, {"aa", "bc", ""}, {"a", "abb", ""}, {"aab", "b", ""}, {"bb", "aa", ""}, {"aa", "bb", "x"}, {"aa", "", "bb"}, {"", "", ""}} {
			got := mustFind(t, x, sc, fp)
			if len(got.Candidates) > 0 || got.References > 0 || got.Seen > 0 {
				t.Errorf("scope %v sees %+v", sc, got)
			}
			if err := x.Remove(context.Background(), sc, "mine"); err != nil {
				t.Error(err)
			}
		}
		if got := mustFind(t, x, testScope, fp); len(got.Candidates) != 1 || got.Seen != 0 {
			t.Errorf("after look-ups and removals in other scopes: %+v", got)
		}
	})
}

func TestIndexForgets(t *testing.T) {
	s := testSigner(t, 1)
	fp := s.Fingerprint(prose(1, 500))
	ctx := context.Background()
	everyIndex(t, func(t *testing.T, x *Index) {
		mustAdd(t, x, testScope, "a", fp)
		mustAdd(t, x, testScope, "b", fp)
		for range 2 { // removing twice is fine
			if err := x.Remove(ctx, testScope, "a"); err != nil {
				t.Fatal(err)
			}
		}
		got := mustFind(t, x, testScope, fp)
		if len(got.Candidates) != 1 || got.Candidates[0].ID != "b" || got.References != 1 {
			t.Errorf("after removing a: %+v", got)
		}
		mustAdd(t, x, testScope, "b", fp)
		if got := mustFind(t, x, testScope, fp); len(got.Candidates) != 1 || got.References != 1 {
			t.Errorf("after refreshing b: %+v", got)
		}
		if err := x.Remove(ctx, testScope, "b"); err != nil {
			t.Fatal(err)
		}
		keys, err := x.db.Keys(ctx, "*").Result()
		if err != nil || len(keys) != 1 { // the counters
			t.Errorf("%d keys left, error %v: want the counters only", len(keys), err)
		}
	})
}

func TestIndexEntriesExpire(t *testing.T) {
	s := testSigner(t, 1)
	fp := s.Fingerprint(prose(1, 500))
	r := lab.StartRedis(t)
	x := openTest(t, IndexOptions{URL: r.URL, TTL: 1200 * time.Millisecond})
	mustAdd(t, x, testScope, "a", fp)
	if got := mustFind(t, x, testScope, fp); len(got.Candidates) != 1 {
		t.Fatalf("not found at once: %+v", got)
	}
	eventually(t, "the entry expires", func() bool {
		got := mustFind(t, x, testScope, fp)
		return len(got.Candidates) == 0 && got.References == 0
	})
	eventually(t, "nothing without a TTL is left", func() bool {
		keys, err := x.db.Keys(context.Background(), "*").Result()
		return err == nil && len(keys) == 1
	})
}

func TestIndexStaysBounded(t *testing.T) {
	s := testSigner(t, 1)
	fp := s.Fingerprint(prose(1, 500))
	everyIndex(t, func(t *testing.T, x *Index) {
		ctx := context.Background()
		for i := range 3 * maxMembers {
			mustAdd(t, x, testScope, fmt.Sprintf("r%02d", i), fp)
			time.Sleep(time.Millisecond) // the newest stay: scores are milliseconds
		}
		n, err := x.db.ZCard(ctx, x.keys(testScope).posting(fp.Keys[0])).Result()
		if err != nil || n != maxMembers {
			t.Errorf("a key lists %d references, error %v: want %d", n, err, maxMembers)
		}
		got := mustFind(t, x, testScope, fp)
		if len(got.Candidates) != 8 || got.Candidates[0].Votes < .99 {
			t.Errorf("found %+v", got)
		}
		for _, c := range got.Candidates {
			if c.ID < fmt.Sprintf("r%02d", 2*maxMembers) {
				t.Errorf("%s is listed, newer ones are not", c.ID)
			}
		}
		for i := range 50 {
			mustFind(t, x, testScope, s.Fingerprint(prose(uint64(1000+i), 300)))
		}
		keys, err := x.db.Keys(ctx, "*").Result()
		want := len(fp.Keys) + 3*maxMembers + 2
		if err != nil || len(keys) > want {
			t.Errorf("%d keys, error %v: look-ups must not add any (want %d)", len(keys), err, want)
		}
	})
}

// TestIndexListsTheLastUsed: a rebuild puts all in at about the same time.
func TestIndexListsTheLastUsed(t *testing.T) {
	fp := IdentitySigner(1).Fingerprint(prose(1, 500))
	ctx := context.Background()
	everyIndex(t, func(t *testing.T, x *Index) {
		now := x.now()
		for i := range 3 * maxMembers { // the last used first
			used := now.Add(-time.Duration(i) * time.Minute)
			if err := x.Add(ctx, testScope, fmt.Sprintf("r%02d", i), fp, used); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Add(ctx, testScope, "unused for longer than the TTL", fp, now.Add(-2*x.ttl)); err != nil {
			t.Fatal(err)
		}
		got := mustFind(t, x, testScope, fp)
		if got.References != 3*maxMembers+1 {
			t.Errorf("%d references, want %d", got.References, 3*maxMembers+1)
		}
		for i, c := range got.Candidates {
			if want := fmt.Sprintf("r%02d", i); c.ID != want {
				t.Errorf("candidate %d is %s, want %s", i, c.ID, want)
			}
		}
	})
}

// An entry long unused lives like any other from when it was put in.
func TestIndexKeepsWhatWasLongUnused(t *testing.T) {
	fp := IdentitySigner(1).Fingerprint(prose(1, 500))
	x := openTest(t, IndexOptions{TTL: time.Hour})
	start := time.Now()
	add := func(id string, used time.Time) {
		t.Helper()
		if err := x.Add(t.Context(), testScope, id, fp, used); err != nil {
			t.Fatal(err)
		}
	}
	add("old", start.Add(-24*time.Hour))
	x.now = func() time.Time { return start.Add(x.ttl/2 + time.Minute) }
	add("new", x.now())
	if got := mustFind(t, x, testScope, fp); len(got.Candidates) != 2 || got.References != 2 {
		t.Errorf("found %+v, want both", got)
	}
}

func TestIndexCountsWhatWasAsked(t *testing.T) {
	s := testSigner(t, 1)
	a := prose(1, 1000)
	edited := slices.Concat(a[:400], prose(9, 30), a[420:])
	everyIndex(t, func(t *testing.T, x *Index) {
		for i := range 5 {
			if got := mustFind(t, x, testScope, s.Fingerprint(a)); got.Seen != i {
				t.Errorf("look-up %d was told of %d before", i, got.Seen)
			}
		}
		if got := mustFind(t, x, testScope, s.Fingerprint(edited)); got.Seen != 5 {
			t.Errorf("an edited prompt was seen %d times: want 5", got.Seen)
		}
		if got := mustFind(t, x, testScope, s.Fingerprint(prose(2, 1000))); got.Seen != 0 {
			t.Errorf("an unrelated prompt was seen %d times", got.Seen)
		}
		x.now = func() time.Time { return time.Now().Add(seenPeriod) }
		if got := mustFind(t, x, testScope, s.Fingerprint(a)); got.Seen != 6 {
			t.Errorf("after a period it was seen %d times: want 6", got.Seen)
		}
		x.now = func() time.Time { return time.Now().Add(3 * seenPeriod) }
		if got := mustFind(t, x, testScope, s.Fingerprint(a)); got.Seen != 0 {
			t.Errorf("after three periods it was seen %d times: want 0", got.Seen)
		}
	})
}

// Whoever can be any tenant must not fill the memory.
func TestTenantsHaveOneTableOfCounters(t *testing.T) {
	fp := testSigner(t, 1).Fingerprint(prose(1, 500))
	everyIndex(t, func(t *testing.T, x *Index) {
		for i := range 100 {
			if got := mustFind(t, x, Scope{Tenant: fmt.Sprint(i)}, fp); got.Seen != 0 {
				t.Errorf("tenant %d is told that it was seen %d times", i, got.Seen)
			}
		}
		keys, err := x.db.Keys(t.Context(), "*").Result()
		if err != nil || len(keys) != 1 {
			t.Fatalf("keys %v, error %v: want one table", keys, err)
		}
		n, err := x.db.HLen(t.Context(), keys[0]).Result()
		if err != nil || n > 100*seenSamples {
			t.Errorf("%d counters, error %v", n, err)
		}
	})
}

// Each counter is added to by several prompts once there are thousands.
func TestAFloodOfPromptsMakesNoneSeemKnown(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: takes a minute under the race detector, and is of one goroutine")
	}
	x := openTest(t, IndexOptions{})
	prompt := func(i uint64) Fingerprint {
		var fp Fingerprint
		for j := range uint64(seenSamples) {
			fp.Keys = append(fp.Keys, mix(i*seenSamples+j))
		}
		return fp
	}
	for range 20 {
		mustFind(t, x, testScope, prompt(1))
	}
	const flood = 5 * seenCounters / seenSamples
	for i := range uint64(flood) {
		mustFind(t, x, Scope{Tenant: fmt.Sprint("tenant", i)}, prompt(1000+i))
	}
	sum := 0
	for i := range uint64(100) {
		sum += mustFind(t, x, testScope, prompt(2*flood+i)).Seen
	}
	if sum > 100 { // each has counters of 5 on average
		t.Errorf("new prompts were seen %d times on average", sum/100)
	}
	if n := mustFind(t, x, testScope, prompt(1)).Seen; n < 16 || n > 24 {
		t.Errorf("a prompt that was asked 20 times was seen %d times", n)
	}
}

// Sidecars with slot directories of their own share a Redis and prompts, and can use
// none of each other's references.
func TestStoresDoNotCrowdEachOtherOut(t *testing.T) {
	s := testSigner(t, 1)
	doc := prose(1, 1000)
	x := openTest(t, IndexOptions{URL: lab.StartRedis(t).URL})
	scope := func(store int) Scope { return Scope{testScope.Tenant, testScope.Model, fmt.Sprint(store)} }
	const stores, each = 12, 3
	for i := range uint64(each) {
		for store := range stores {
			fp := s.Fingerprint(slices.Concat(doc, prose(100*i+uint64(store), 30)))
			mustAdd(t, x, scope(store), fmt.Sprint(store, "-", i), fp)
		}
	}
	for store := range stores {
		got := mustFind(t, x, scope(store), s.Fingerprint(slices.Concat(doc, prose(9999, 30))))
		if len(got.Candidates) != each || got.References != each {
			t.Errorf("store %d finds %+v: want its own %d", store, got, each)
		}
		for _, c := range got.Candidates {
			if !strings.HasPrefix(c.ID, fmt.Sprint(store, "-")) {
				t.Errorf("store %d finds %s", store, c.ID)
			}
		}
	}
}

// What nobody renews goes from lists that others keep alive.
func TestIndexForgetsTheDeadAmongTheLiving(t *testing.T) {
	fp := testSigner(t, 1).Fingerprint(prose(1, 500))
	everyIndex(t, func(t *testing.T, x *Index) {
		start := time.Now()
		for i := range 4 {
			x.now = func() time.Time { return start.Add(time.Duration(i) * x.ttl / 2) }
			if i == 0 {
				mustAdd(t, x, testScope, "dead", fp)
			}
			mustAdd(t, x, testScope, "living", fp)
		}
		got := mustFind(t, x, testScope, fp)
		if len(got.Candidates) != 1 || got.Candidates[0].ID != "living" || got.References != 1 {
			t.Errorf("found %+v after one and a half TTLs: want the living one", got)
		}
	})
}

func TestIndexHoldsNoContent(t *testing.T) {
	s := testSigner(t, 1)
	fp := s.Fingerprint(prose(1, 500))
	x := openTest(t, IndexOptions{Prefix: "pre"})
	mustAdd(t, x, Scope{"tenantname", "modelname", "storename"}, "theid", fp)
	ctx := context.Background()
	keys, err := x.db.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if !strings.HasPrefix(k, "pre:") || strings.Contains(k, "tenantname") || strings.Contains(k, "modelname") || strings.Contains(k, "storename") || strings.Contains(k, "theid") {
			t.Errorf("key %q", k)
		}
	}
	// The same prompt under another secret has no name in common.
	y := openTest(t, IndexOptions{Prefix: "pre", Secret: []byte("another secret..")})
	mustAdd(t, y, Scope{"tenantname", "modelname", "storename"}, "theid", fp)
	others, err := y.db.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range others {
		if slices.Contains(keys, k) {
			t.Errorf("key %q under two secrets", k)
		}
	}
	if len(fp.Keys) == 0 || len(keys) != len(fp.Keys)+2 {
		t.Errorf("%d keys for a fingerprint of %d", len(keys), len(fp.Keys))
	}
}

// An entry's keys are hidden by a pad of which no word is used twice: not for another id, nor
// further on in the same entry.
func TestIndexSealsItsEntries(t *testing.T) {
	x := openTest(t, IndexOptions{})
	sc := Scope{"tenant", "model", "store"}
	fp := testSigner(t, 1).Fingerprint(prose(1, 500))
	used := map[uint64]string{0: "an open one"}
	for _, id := range []string{"one", "two"} {
		mustAdd(t, x, sc, id, fp)
		blob, err := x.db.Get(context.Background(), x.keys(sc).entry(id)).Bytes()
		if err != nil || len(blob) != 8*len(fp.Keys) {
			t.Fatalf("the entry of %s: %d bytes for %d keys, %v", id, len(blob), len(fp.Keys), err)
		}
		for i, key := range fp.Keys {
			pad := key ^ binary.LittleEndian.Uint64(blob[8*i:])
			if of := used[pad]; of != "" {
				t.Fatalf("key %d of entry %s has the pad of %s", i, id, of)
			}
			used[pad] = fmt.Sprintf("key %d of entry %s", i, id)
		}
	}
	if len(fp.Keys) < 8 {
		t.Errorf("a fingerprint of %d keys tells little", len(fp.Keys))
	}
}

// Who reads Redis and not the secret cannot look a guessed prompt up among the
// counters.
func TestIndexCountersDependOnTheSecret(t *testing.T) {
	s := testSigner(t, 1)
	fp := s.Fingerprint(prose(1, 500))
	sc := Scope{"tenant", "model", "store"}
	fields := func(secret string) []string {
		x := openTest(t, IndexOptions{Secret: []byte(secret)})
		if _, err := x.Find(context.Background(), sc, fp, 1); err != nil {
			t.Fatal(err)
		}
		names, err := x.db.Keys(context.Background(), "*:c:*").Result()
		if err != nil || len(names) != 1 {
			t.Fatalf("counters %v: %v", names, err)
		}
		f, err := x.db.HKeys(context.Background(), names[0]).Result()
		if err != nil || len(f) < seenSamples/2 {
			t.Fatalf("fields %v: %v", f, err)
		}
		return f
	}
	other, same := fields("another secret.."), 0
	for _, f := range fields("sixteen bytes ..") {
		if slices.Contains(other, f) {
			same++
		}
	}
	if same > 2 { // of 65,536
		t.Errorf("%d of %d fields are the same under two secrets", same, len(other))
	}
}

func TestIndexTakesEmptyFingerprints(t *testing.T) {
	everyIndex(t, func(t *testing.T, x *Index) {
		mustAdd(t, x, testScope, "a", Fingerprint{})
		if got := mustFind(t, x, testScope, Fingerprint{}); len(got.Candidates) > 0 || got.Seen > 0 {
			t.Errorf("found %+v", got)
		}
	})
}

func TestIndexIsForManyGoroutines(t *testing.T) {
	s := testSigner(t, 1)
	everyIndex(t, func(t *testing.T, x *Index) {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := range 5 {
					fp := s.Fingerprint(prose(uint64(g*100+i), 400))
					id := fmt.Sprint(g, "-", i)
					if err := x.Add(t.Context(), testScope, id, fp, x.now()); err != nil {
						t.Error(err)
					}
					got, err := x.Find(t.Context(), testScope, fp, 1)
					if err != nil || len(got.Candidates) != 1 || got.Candidates[0].ID != id {
						t.Errorf("%s: found %+v, error %v", id, got, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestIndexStopsWhenTheCallerDoes(t *testing.T) {
	everyIndex(t, func(t *testing.T, x *Index) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		fp := testSigner(t, 1).Fingerprint(prose(1, 500))
		if _, err := x.Find(ctx, testScope, fp, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want context canceled", err)
		}
		// The caller's going is not Redis's fault: the next one is served.
		mustFind(t, x, testScope, fp)
	})
}

// eventually waits for something that happens by itself.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
