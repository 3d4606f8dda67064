package bridge

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// clock is a time that several stores have in common.
type clock struct{ time.Time }

func (c *clock) now() time.Time       { return c.Time }
func (c *clock) pass(d time.Duration) { c.Time = c.Add(d) }

func (s *Store) metaOf(id string) Meta { return s.entries[id].meta }
func (s *Store) seenOf(id string) int  { return s.entries[id].earned.at(s.o.Now()).seen() }

func refreshed(all ...*Store) {
	for _, s := range all {
		s.Refresh()
	}
}

func TestNoSidecarEvictsWhatAnotherMakesUseOf(t *testing.T) {
	f := func(model string) {
		t.Helper()
		c := &clock{time.Unix(1e9, 0)}
		dir := t.TempDir()
		a := openStore(t, dir, StoreOptions{Model: model, Budget: 2 * stateBytes, Now: c.now})
		b := openStore(t, dir, StoreOptions{Model: "model", Budget: 2 * stateBytes, Now: c.now})
		hot, cold := save(t, b, 1, 1), save(t, b, 2, 1)
		for range 50 {
			b.Hit(hot, 100)
		}
		c.pass(metaInterval)
		refreshed(b, a)
		if m := a.metaOf(hot); m.Hits != 50 || m.SavedTokens != 5000 || a.seenOf(hot) != b.seenOf(hot) {
			t.Errorf("%s: %+v, seen %d times: expected what the other sidecar counted, and %d times", model, m, a.seenOf(hot), b.seenOf(hot))
		}
		there := func(when string, id string, want bool) {
			t.Helper()
			b.Refresh()
			if _, err := b.Prompt(id); (err == nil) != want {
				t.Errorf("%s, %s: %v: expected that it is there: %t", model, when, err, want)
			}
		}
		mine := save(t, a, 3, 1)
		there("never used", cold, false)
		a.Hit(mine, 1000)
		if _, err := trySave(t, a, 4, 1); !errors.Is(err, ErrNotAdmitted) {
			t.Errorf("%s: a new prompt, where all are used: %v", model, err)
		}
		there("used", hot, true)
		c.pass(24 * time.Hour)
		save(t, a, 5, 1)
		there("used a day ago", hot, false)
	}
	f("model")
	f("another model")
}

// What was earned by a clock that ran ahead fades as all does.
func TestEarningsOfAFutureTimeFade(t *testing.T) {
	ahead := &clock{time.Unix(1e9, 0).Add(48 * time.Hour)}
	c := &clock{time.Unix(1e9, 0)}
	dir := t.TempDir()
	other := openStore(t, dir, StoreOptions{Now: ahead.now})
	id := save(t, other, 1, 1)
	hits := func(n int) {
		for range n {
			other.Hit(id, 100)
		}
		ahead.pass(metaInterval)
		other.Refresh()
	}
	var s *Store
	f := func(what string, seen int) {
		t.Helper()
		if m := s.metaOf(id); m.Used.After(c.Time) || m.Created.After(c.Time) {
			t.Errorf("%s: made at %v and used at %v, which are after %v", what, m.Created, m.Used, c.Time)
		}
		c.pass(halfLife)
		if got := s.seenOf(id); got != seen {
			t.Errorf("%s and %v later: seen %d times, want %d", what, halfLife, got, seen)
		}
	}
	hits(16)
	s = openStore(t, dir, StoreOptions{Now: c.now})
	f("found", 1+8)
	hits(16)
	s.Refresh()
	f("read again", 1+16)
}

// TestWhatNobodyServesMakesRoom: after a change of model the references of before, however
// many used them, keep new prompts out for an hour, and those of the model for longer.
func TestWhatNobodyServesMakesRoom(t *testing.T) {
	f := func(model string, after time.Duration, want error) {
		t.Helper()
		c := &clock{time.Unix(1e9, 0)}
		dir := t.TempDir()
		s := openStore(t, dir, StoreOptions{Model: "model", Budget: stateBytes, Now: c.now})
		id := save(t, s, 1, 1)
		for range 50 {
			s.Hit(id, 100)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openStore(t, dir, StoreOptions{Model: model, Budget: stateBytes, Now: c.now})
		c.pass(after)
		if _, err := trySave(t, s, 2, 1); !errors.Is(err, want) {
			t.Errorf("a new prompt of %s after %v: %v, want %v", model, after, err, want)
		}
	}
	f("model", halfLife+time.Second, ErrNotAdmitted)
	f("another model", halfLife-time.Second, ErrNotAdmitted)
	f("another model", halfLife+time.Second, nil)
}

func TestHitsOfSeveralSidecarsAddUp(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	dir := t.TempDir()
	a := openStore(t, dir, StoreOptions{Now: c.now})
	id := save(t, a, 1, 1)
	b := openStore(t, dir, StoreOptions{Now: c.now})
	f := func(what string, hits int64, seen int) {
		t.Helper()
		for _, s := range []*Store{a, b} {
			if m := s.metaOf(id); m.Hits != hits || m.SavedTokens != 10*hits || !m.Used.Equal(c.Time) || s.seenOf(id) != seen {
				t.Errorf("%s: %+v, seen %d times: expected %d hits until %v, seen %d times", what, m, s.seenOf(id), hits, c.Time, seen)
			}
		}
	}
	c.pass(metaInterval)
	for range 3 {
		a.Hit(id, 10)
	}
	for range 5 {
		b.Hit(id, 10)
	}
	refreshed(a, b, a)
	f("both at once", 8, 9)
	c.pass(halfLife)
	a.Hit(id, 10)
	a.Refresh()
	b.Hit(id, 10)
	b.Refresh()
	a.Refresh()
	f("an hour later", 10, 1+8/2+2)
	b.Hit(id, 10)
	a.Hit(id, 10)
	a.Close()
	b.Close()
	a = openStore(t, dir, StoreOptions{Now: c.now})
	b = a
	f("after a restart", 12, 1+8/2+4)
}

func TestHitsThatAreDueAreWrittenThoughNoneFollows(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	s := openStore(t, t.TempDir(), StoreOptions{Now: c.now})
	id := save(t, s, 1, 1)
	s.Hit(id, 10)
	f := func(hits int64) {
		t.Helper()
		s.Refresh()
		if rec, err := s.readMeta(id); err != nil || rec.Hits != hits {
			t.Errorf("%d hits are written, %v: expected %d", rec.Hits, err, hits)
		}
	}
	c.pass(metaInterval - 1)
	f(0)
	c.pass(1)
	f(1)
}

// Who or what a reference is for is never taken from a file that changed later.
func TestMetadataThatChangeLaterChangeOnlyCounts(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	id := save(t, s, 1, 1)
	want := s.metaOf(id)
	path := filepath.Join(dir, metaName(id))
	f := func(data string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Refresh()
		if got := s.metaOf(id); got != want {
			t.Errorf("%+v: expected %+v", got, want)
		}
	}
	f("{")
	f(`{"id":"` + id + `"}`)
	want.Hits = 7
	f(fmt.Sprintf(`{"id":%q,"tenant":"other","model":"other","tokens":1,"bytes":%d,"hits":7}`, id, stateBytes))
}

// Of a pipe in the place of metadata one knows when it is being read.
func TestLookUpsDoNotWaitForTheDisk(t *testing.T) {
	f := func(what string, reads func(*Store)) {
		t.Helper()
		dir := t.TempDir()
		s := openStore(t, dir, StoreOptions{Budget: stateBytes})
		path := filepath.Join(dir, metaName("0123456789abcdef-1"))
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			reads(s)
		}()
		pipe := openForReader(t, path, done)
		if s.mu.TryLock() {
			s.mu.Unlock()
		} else {
			t.Errorf("%s: the store is locked while it reads a file", what)
		}
		unix.Close(pipe)
		<-done
	}
	f("refreshing", (*Store).Refresh)
	f("making room", func(s *Store) {
		if p, err := s.Reserve(stateBytes, Meta{}, 1); err == nil {
			p.Abort()
		}
	})
	f("looking up another", func(s *Store) { _, _ = s.Prompt("0123456789abcdef-1") })
}

// A full pipe in the place of what is written stalls as a disk may.
func TestLookUpsDoNotWaitForWhatIsWritten(t *testing.T) {
	f := func(what string, prepare func(s *Store, c *clock) (id string, write func())) {
		t.Helper()
		c := &clock{time.Unix(1e9, 0)}
		s := openStore(t, t.TempDir(), StoreOptions{Now: c.now})
		id, write := prepare(s, c)
		pipe := fullPipe(t, filepath.Join(s.dir, metaTmpName(s.run.id, id)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			write()
		}()
		waitForWriter(t, pipe, done)
		if s.mu.TryLock() {
			s.mu.Unlock()
		} else {
			t.Errorf("%s: the store is locked while it writes a file", what)
		}
		unix.Close(pipe)
		<-done
	}
	f("a hit", func(s *Store, c *clock) (string, func()) {
		id := save(t, s, 1, 1)
		s.Hit(id, 10)
		c.pass(metaInterval)
		return id, func() {
			refreshed(s, s) // the first time in vain
			if rec, err := s.readMeta(id); err != nil || rec.Hits != 1 || s.metaOf(id).Hits != 1 {
				t.Errorf("%d hits written, %v, and %d counted: expected the one that could not be written at first", rec.Hits, err, s.metaOf(id).Hits)
			}
		}
	})
	f("a capture", func(s *Store, _ *clock) (string, func()) {
		p, err := s.Reserve(stateBytes, Meta{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		writeState(t, p.Path(), storeLayout, 1, storeTokens, 1)
		return p.meta.ID, func() {
			if _, err := p.Commit(); err == nil || s.used() != 0 {
				t.Errorf("what could not be written: %v, and %d bytes stay reserved", err, s.used())
			}
		}
	})
}

// fullPipe makes a pipe that takes nothing more, and returns the end that reads.
func fullPipe(t *testing.T, path string) int {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	write, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(write)
	for page := make([]byte, os.Getpagesize()); err == nil; {
		_, err = unix.Write(write, page)
	}
	return read
}

// waitForWriter waits until somebody has opened a pipe for writing.
func waitForWriter(t *testing.T, pipe int, gaveUp <-chan struct{}) {
	t.Helper()
	for {
		look := []unix.PollFd{{Fd: int32(pipe)}}
		if _, err := unix.Poll(look, 0); err == nil && look[0].Revents&unix.POLLHUP == 0 {
			return
		}
		select {
		case <-gaveUp:
			t.Fatal("nobody wrote to the pipe")
		case <-time.After(time.Millisecond):
		}
	}
}

// What is dropped is gone at once, though its files go when others are written.
func TestADroppedReferenceDoesNotComeBackFromFilesThatAreStillThere(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{})
	id := save(t, s, 1, 1)
	s.files.Lock()
	var dropped sync.WaitGroup
	dropped.Go(func() { s.Drop(id, "test") })
	for s.Stats().References > 0 {
		time.Sleep(time.Millisecond)
	}
	look(t, s)()
	if _, err := s.Prompt(id); !errors.Is(err, ErrNoReference) || len(s.All()) > 0 {
		t.Errorf("has %v, and looking it up gives %v: expected nothing", ids(s.All()), err)
	}
	if got, want := files(t, s.dir), []string{stateName(id), metaName(id)}; !slices.Equal(got, want) {
		t.Errorf("files %v: expected %v as long as another is written", got, want)
	}
	s.files.Unlock()
	dropped.Wait()
	if got := files(t, s.dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// Between its metadata and its entry a reference that is being made is on the disk alone.
func TestAReferenceThatIsBeingMadeIsNotFoundYet(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{})
	p, err := s.Reserve(stateBytes, Meta{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	writeState(t, p.Path(), storeLayout, 1, storeTokens, 1)
	id := p.meta.ID
	if err := os.WriteFile(s.metaPath(id), fmt.Appendf(nil, `{"id":%q,"model":"model","tokens":%d,"bytes":%d}`, id, storeTokens, stateBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Refresh()
	if _, err := s.Get(id); !errors.Is(err, ErrNoReference) || len(s.All()) > 0 {
		t.Errorf("has %v, and using it gives %v: expected nothing yet", ids(s.All()), err)
	}
	ref, err := p.Commit()
	if err != nil {
		t.Fatal(err)
	}
	ref.Release()
}

// openForReader opens a pipe for writing once somebody reads it.
func openForReader(t *testing.T, path string, gaveUp <-chan struct{}) int {
	t.Helper()
	for {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd
		}
		select {
		case <-gaveUp:
			t.Fatalf("nobody read %s: %v", path, err)
		case <-time.After(time.Millisecond):
		}
	}
}

// look has s look at the directory, and returns what has it act on what it saw.
func look(t *testing.T, s *Store) (act func()) {
	t.Helper()
	l, err := s.list()
	if err != nil {
		t.Fatal(err)
	}
	all := s.readNews(l)
	return func() { s.note(l, all) }
}

func TestAReferenceMadeSinceTheDirectoryWasReadStays(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	act := look(t, s)
	whole := save(t, s, 1, 1)
	p, err := s.Reserve(stateBytes, Meta{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	writeState(t, p.Path(), storeLayout, 1, storeTokens, 2)
	act()
	act = look(t, s) // at a state file without metadata
	ref, err := p.Commit()
	if err != nil {
		t.Fatal(err)
	}
	ref.Release()
	act()
	want := []string{stateName(whole), metaName(whole), stateName(ref.ID), metaName(ref.ID)}
	slices.Sort(want)
	if got := files(t, dir); !slices.Equal(got, want) || len(s.All()) != 2 {
		t.Errorf("files %v, references %v: expected %v", got, ids(s.All()), want)
	}
}

func TestAReferenceRemovedSinceItsMetadataWereReadDoesNotComeBack(t *testing.T) {
	dir := t.TempDir()
	s, other := openStore(t, dir, StoreOptions{}), openStore(t, dir, StoreOptions{})
	id := save(t, other, 1, 1)
	act := look(t, s)
	other.Drop(id, "test")
	act()
	if got := ids(s.All()); len(got) != 0 {
		t.Errorf("%v came back", got)
	}
}

func TestMetadataReadBeforeNewerOnesWereWrittenAreLeft(t *testing.T) {
	c := &clock{time.Unix(1e9, 0)}
	dir := t.TempDir()
	other := openStore(t, dir, StoreOptions{Now: c.now})
	id := save(t, other, 1, 1)
	s := openStore(t, dir, StoreOptions{Now: c.now})
	c.pass(metaInterval)
	other.Hit(id, 10)
	other.Refresh()
	act := look(t, s)
	s.Hit(id, 10)
	s.Refresh()
	act()
	if n := s.metaOf(id).Hits; n != 2 {
		t.Errorf("%d hits: expected 2", n)
	}
}
