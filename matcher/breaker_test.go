package matcher

import (
	"testing"
	"time"
)

func TestBreakerRestsLongerAfterEachOutage(t *testing.T) {
	var b breaker
	now := time.Unix(1000, 0)
	allowed := func(want bool) {
		t.Helper()
		if got := b.allow(now); got != want {
			t.Fatalf("allowed: %v, want %v", got, want)
		}
	}
	allowed(true)
	// Many requests under way fail together: one outage.
	for range 10 {
		b.fail(now.Add(-time.Millisecond), now)
	}
	if b.rest != restMin {
		t.Fatalf("rest %v after one outage, want %v", b.rest, restMin)
	}
	allowed(false)
	now = now.Add(restMin)
	allowed(true)  // one tries
	allowed(false) // the others do not
	b.fail(now, now)
	if b.rest != 2*restMin {
		t.Fatalf("rest %v after the second failure, want %v", b.rest, 2*restMin)
	}
	for range 20 {
		now = now.Add(restMax)
		b.fail(now, now)
	}
	if b.rest != restMax {
		t.Fatalf("rest %v, want at most %v", b.rest, restMax)
	}
	now = now.Add(restMax)
	allowed(true)
	b.succeeded()
	allowed(true)
	allowed(true)
}
