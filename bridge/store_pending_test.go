package bridge

import (
	"errors"
	"os"
	"testing"
	"time"
)

// A slot waits while room is made, and reading a large directory takes a while.
func TestMakingRoomLooksOnceASecondAndWritesNothing(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	dir := t.TempDir()
	s, other := openStore(t, dir, StoreOptions{Now: c.now}), openStore(t, dir, StoreOptions{})
	mine := save(t, s, 1, 1)
	save(t, other, 2, 1)
	s.Hit(mine, 10)
	f := func(after time.Duration, references int) {
		t.Helper()
		c.pass(after)
		p, err := s.Reserve(stateBytes, Meta{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		p.Abort()
		if n := s.Stats().References; n != references {
			t.Errorf("after %v it knows %d references, want %d", after, n, references)
		}
		if rec, err := s.readMeta(mine); err != nil || rec.Hits != 0 {
			t.Errorf("after %v: %v, %d hits were written, want none", after, err, rec.Hits)
		}
	}
	f(freshFor-1, 1)
	f(1, 2)
	f(metaInterval, 2)
	c.pass(-time.Hour) // the clock was set
	save(t, other, 3, 1)
	f(0, 3)
}

// A state may be gigabytes, and look-ups wait for the lock.
func TestWhatIsAbortedIsDeletedWithoutTheLock(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{})
	p, err := s.Reserve(stateBytes, Meta{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	aborted := make(chan struct{})
	go func() {
		defer close(aborted)
		p.Abort()
	}()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Lstat(p.Path()); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Error("the file waits for the lock")
			break
		}
	}
	s.mu.Unlock()
	<-aborted
	if n := s.used(); n != 0 {
		t.Errorf("%d bytes stay reserved", n)
	}
}

// What is being saved takes room from the moment it is reserved.
func TestReservedBytesCountAgainstTheBudget(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{Budget: stateBytes})
	first, err := s.Reserve(stateBytes, Meta{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := s.Reserve(stateBytes, Meta{}, 1); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("a second one got %v, error %v: expected no room beside the first", second, err)
	}
	first.Abort()
	save(t, s, 1, 1)
}

// A state may turn out larger than was reserved, with all else in use.
func TestAStateThatOutgrewItsReservationIsNotKeptOverBudget(t *testing.T) {
	dir := t.TempDir()
	const budget = 3
	s := openStore(t, dir, StoreOptions{Budget: budget * stateBytes})
	for seed := range uint64(budget - 1) {
		ref, err := s.Get(save(t, s, seed, 1))
		if err != nil {
			t.Fatal(err)
		}
		defer ref.Release()
	}
	p, err := s.Reserve(stateBytes, Meta{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	writeState(t, p.Path(), storeLayout, 1, 2*storeTokens, 9)
	if _, err := p.Commit(); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("of twice the tokens: error %v, expected %v", err, ErrNotAdmitted)
	}
	if got, want := ReferenceBytes(dir), (budget-1)*stateBytes; got != want {
		t.Errorf("references take %d bytes: expected the %d of those from before", got, want)
	}
	save(t, s, 9, 1)
	if got := ReferenceBytes(dir); got != budget*stateBytes {
		t.Errorf("references take %d bytes: expected that one more had room, %d", got, budget*stateBytes)
	}
}
