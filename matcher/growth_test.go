package matcher

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"
)

// remembered is how many names the embedded Redis knows.
func remembered(x *Index) int {
	db := reflect.ValueOf(x.embedded.DB(0)).Elem()
	x.embedded.Lock()
	defer x.embedded.Unlock()
	return db.FieldByName("keyVersion").Len()
}

// distinct is a fingerprint that has no key in common with any other.
func distinct(i int) Fingerprint {
	fp := Fingerprint{Keys: make([]uint64, maxKeys)}
	for j := range fp.Keys {
		fp.Keys[j] = mix(uint64(i*maxKeys + j))
	}
	return fp
}

func TestTheEmbeddedIndexForgetsNames(t *testing.T) {
	noLeaks(t)
	x := openTest(t, IndexOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	mustAdd(t, x, testScope, "kept", distinct(0))
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.Watch(ctx, time.Millisecond, Kept{List: only(), Looked: func(err error) {
			if err != nil {
				t.Error(err)
			}
		}})
	}()
	const references = 3 * maxForgotten / maxKeys / 2
	for i := range references {
		id := fmt.Sprint("r", i)
		mustAdd(t, x, testScope, id, distinct(1+i))
		if err := x.Remove(ctx, testScope, id); err != nil {
			t.Fatal(err)
		}
		if i%8 != 0 {
			continue
		}
		if got := mustFind(t, x, testScope, distinct(0)); len(got.Candidates) != 1 {
			t.Fatalf("found %+v after %d others came and went, want the one that stays", got, i+1)
		}
	}
	eventually(t, "most names are forgotten", func() bool { return remembered(x) < maxForgotten })
	cancel()
	<-done
	if got := mustFind(t, x, testScope, distinct(0)); got.Seen < references/16 {
		t.Errorf("it was looked up %d times and is said to be seen %d times", references/8, got.Seen)
	}
	key := x.keys(testScope).posting(distinct(0).Keys[0])
	if ttl := x.db.TTL(t.Context(), key).Val(); ttl < x.ttl/2 || ttl > x.ttl {
		t.Errorf("what is kept lives for %v, want about %v", ttl, x.ttl)
	}
}
