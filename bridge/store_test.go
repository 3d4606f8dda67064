package bridge

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const storeTokens = 16

var storeLayout = testLayout(4, true, false, 2, F16, F16)

// stateBytes is the size of the states that these tests save.
var stateBytes = storeLayout.FileBytes(storeTokens, storeTokens)

func openStore(t testing.TB, dir string, o StoreOptions) *Store {
	t.Helper()
	if o.Model == "" {
		o.Model = "model"
	}
	s, err := OpenStore(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// save does what a capture does: reserve, have a state written, commit.
func save(t testing.TB, s *Store, seed uint64, frequency int) string {
	t.Helper()
	id, err := trySave(t, s, seed, frequency)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func trySave(t testing.TB, s *Store, seed uint64, frequency int) (string, error) {
	t.Helper()
	p, err := s.Reserve(stateBytes, Meta{Tenant: "tenant"}, frequency)
	if err != nil {
		return "", err
	}
	writeState(t, p.Path(), storeLayout, 1, storeTokens, seed)
	ref, err := p.Commit()
	if err != nil {
		return "", err
	}
	defer ref.Release()
	return ref.ID, nil
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		if filepath.Ext(f.Name()) != ".lock" {
			names = append(names, f.Name())
		}
	}
	return names
}

func ids(all []Meta) []string {
	var out []string
	for _, m := range all {
		out = append(out, m.ID)
	}
	slices.Sort(out)
	return out
}

func TestReferenceSurvivesRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "slots")
	s := openStore(t, dir, StoreOptions{})
	id := save(t, s, 1, 1)
	s.Hit(id, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, StoreOptions{})
	ref, err := s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Release()
	if ref.Hits != 1 || ref.SavedTokens != 100 || ref.Tenant != "tenant" || ref.Tokens != storeTokens || ref.Bytes != stateBytes {
		t.Errorf("got %+v", ref.Meta)
	}
	p, err := s.Prompt(id)
	if err != nil || p.Tenant != "tenant" || !slices.Equal(p.Tokens, ref.State.Tokens) {
		t.Errorf("prompt %v, %v", p, err)
	}
}

func TestNobodyElseMayReadTheStore(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "wide")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, dir, StoreOptions{})
	p, err := s.Reserve(stateBytes, Meta{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	mode := func(path string) os.FileMode {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Mode().Perm()
	}
	if mode(dir) != 0o700 || mode(p.Path()) != 0o600 {
		t.Errorf("directory %o, file about to be saved %o", mode(dir), mode(p.Path()))
	}
	// A server that makes the file anew makes it readable to all.
	os.Remove(p.Path())
	writeState(t, p.Path(), storeLayout, 1, storeTokens, 1)
	os.Chmod(p.Path(), 0o644)
	ref, err := p.Commit()
	if err != nil {
		t.Fatal(err)
	}
	ref.Release()
	for _, name := range files(t, dir) {
		if got := mode(filepath.Join(dir, name)); got != 0o600 {
			t.Errorf("%s has mode %o", name, got)
		}
	}
}

// TestADirectoryThatAnotherUserMadeIsNotUsed: he could have made it beforehand, as anybody can in
// /dev/shm, to read what is put there.
func TestADirectoryThatAnotherUserMadeIsNotUsed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root gives directories to another user")
	}
	const self = 1234
	top := t.TempDir()
	f := func(own bool, dirs ...string) { // each "name owner mode", below the one before
		t.Helper()
		path := top
		for _, d := range dirs {
			var name string
			var owner int
			var mode os.FileMode
			if _, err := fmt.Sscan(d, &name, &owner, &mode); err != nil {
				t.Fatal(err)
			}
			path = filepath.Join(path, name)
			if err := errors.Join(os.MkdirAll(path, 0o700), os.Chown(path, owner, owner), os.Chmod(path, mode)); err != nil {
				t.Fatal(err)
			}
		}
		if err := checkOwner(path, self); (err == nil) != own {
			t.Errorf("%q: error %v; want none: %v", dirs, err, own)
		}
	}
	shm := fmt.Sprint("shm 0 ", uint32(os.ModeSticky|0o777))
	f(true, shm)
	f(true, shm, "own 1234 0o700")
	f(true, shm, "roots 0 0o777")
	f(false, shm, "others 1235 0o755")
	f(false, shm, "others 1235 0o755", "own 1234 0o700")
	f(true, "home 1235 0o755", "slots 1235 0o777")
	f(true, "volume 0 0o777", "slots 1235 0o777")

	link := filepath.Join(top, "link")
	if err := os.Symlink(filepath.Join(top, "shm/others"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(link, StoreOptions{}); err == nil || !strings.Contains(err.Error(), "belongs to user 1235") {
		t.Errorf("opening one by a link: error %v", err)
	}
	for owner, want := range map[int]bool{self: true, 1235: false} {
		link := filepath.Join(top, "shm", fmt.Sprint("link", owner))
		if err := errors.Join(os.Symlink(filepath.Join(top, "home/slots"), link), os.Lchown(link, owner, owner)); err != nil {
			t.Fatal(err)
		}
		if err := checkOwner(link, self); (err == nil) != want {
			t.Errorf("a link of user %d's: error %v", owner, err)
		}
	}
}

func TestWhatIsNotCommittedIsGoneAfterRestart(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	kept := save(t, s, 1, 1)
	if _, err := s.Reserve(stateBytes, Meta{}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Scratch(1000); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{metaTmpName("0123456789abcdef", kept), "ssk-0123456789abcdef-s0.scratch", "ssk-0123456789abcdef-2.bin"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(dir, "someone-elses.bin")
	if err := os.WriteFile(other, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(files(t, dir))

	// While the first run lives, a second leaves its files alone.
	s2 := openStore(t, dir, StoreOptions{})
	if n := len(files(t, dir)); n != before-3 {
		t.Errorf("%d files while the first run lives: expected %d: %v", n, before-3, files(t, dir))
	}
	s2.Close()
	s.run.f.Close() // as a kill would
	s3 := openStore(t, dir, StoreOptions{})
	want := []string{"someone-elses.bin", stateName(kept), metaName(kept)}
	slices.Sort(want)
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %v: expected %v", got, want)
	}
	if got := ids(s3.All()); !slices.Equal(got, []string{kept}) {
		t.Errorf("references %v", got)
	}
}

// lockFile makes the lock file of a run, and does not take the lock yet.
func lockFile(t *testing.T, dir, run string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, lockName(run)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A run that starts while another recovers must not get its lock before the other has
// deleted the file: it would go on without one.
func TestTheLockOfARunFoundDeadIsHeldUntilItsFilesAreGone(t *testing.T) {
	const run = "0123456789abcdef"
	dir := t.TempDir()
	starting := lockFile(t, dir, run)
	r := runs{dir: dir, lives: map[string]bool{}}
	if r.alive(run) {
		t.Fatal("a run without its lock lives")
	}
	lock := func() error { return unix.Flock(int(starting.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
	if err := lock(); err != unix.EWOULDBLOCK {
		t.Errorf("the lock was free: %v", err)
	}
	r.close()
	if err := lock(); err != nil {
		t.Errorf("the lock is not free: %v", err)
	}
}

func TestARunIsDeadOnlyWhereItsLockIsFreeOrGone(t *testing.T) {
	const held, unreadable, gone = "0000000000000001", "0000000000000002", "0000000000000003"
	dir := t.TempDir()
	if err := unix.Flock(int(lockFile(t, dir, held).Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	lockFile(t, dir, unreadable)
	r := runs{dir: dir, lives: map[string]bool{}}
	defer r.close()
	withoutFiles(t, func() {
		if !r.alive(unreadable) {
			t.Error("a run whose lock cannot be opened is dead")
		}
	})
	if !r.alive(held) || r.alive(gone) {
		t.Errorf("the run that holds its lock lives: %t, the one that has none: %t", r.alive(held), r.alive(gone))
	}
}

func TestDamagedReferencesAreDropped(t *testing.T) {
	f := func(what string, restart bool, reason string, damage func(path string)) {
		t.Helper()
		dir := t.TempDir()
		var dropped []string
		o := StoreOptions{OnDrop: func(m Meta, why string) { dropped = append(dropped, m.ID+" "+why) }}
		s := openStore(t, dir, o)
		id := save(t, s, 1, 1)
		if restart {
			s.Close()
		}
		damage(filepath.Join(dir, stateName(id)))
		if restart {
			s = openStore(t, dir, o)
		}
		ref, err := s.Get(id)
		if err == nil {
			ref.Release()
			t.Errorf("%s: no error", what)
		}
		if !slices.Equal(dropped, []string{id + " " + reason}) {
			t.Errorf("%s: dropped %v: expected %s as %s", what, dropped, id, reason)
		}
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("%s: %v are left", what, got)
		}
		if st := s.Stats(); st.References != 0 || st.Bytes != 0 {
			t.Errorf("%s: %+v", what, st)
		}
	}
	flip := func(path string) {
		data, _ := os.ReadFile(path)
		data[len(data)-5] ^= 1
		os.Remove(path)
		os.WriteFile(path, data, 0o600)
	}
	cut := func(path string) {
		data, _ := os.ReadFile(path)
		os.Remove(path)
		os.WriteFile(path, data[:len(data)-1], 0o600)
	}
	remove := func(path string) { os.Remove(path) }
	for _, restart := range []bool{false, true} {
		f("a flipped bit", restart, DropCorrupt, flip)
		f("a cut file", restart, DropCorrupt, cut)
		f("a missing file", restart, DropMissing, remove)
	}
	f("metadata that are none", true, DropCorrupt, func(path string) {
		os.WriteFile(strings.TrimSuffix(path, ".bin")+".json", []byte("{"), 0o600)
	})
}

// withoutFiles runs f while the process may open no file.
func withoutFiles(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	f()
}

func TestAReferenceOutlivesErrorsThatPass(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	id := save(t, s, 1, 1)
	s.Close()
	s = openStore(t, dir, StoreOptions{})
	withoutFiles(t, func() {
		if _, err := s.Get(id); !errors.Is(err, unix.EMFILE) {
			t.Errorf("Get: %v: expected that no file can be opened", err)
		}
		if _, err := s.Prompt(id); !errors.Is(err, unix.EMFILE) {
			t.Errorf("Prompt: %v: expected that no file can be opened", err)
		}
	})
	ref, err := s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	ref.Release()
}

func TestAReferenceGoesThatCannotBeReadForLong(t *testing.T) {
	f := func(what string, every time.Duration, readBetween bool, references int) {
		t.Helper()
		c := &clock{time.Unix(1e9, 0)}
		dir := t.TempDir()
		s := openStore(t, dir, StoreOptions{})
		id := save(t, s, 1, 1)
		s.Close()
		s = openStore(t, dir, StoreOptions{Now: c.now})
		for start := c.Time; c.Sub(start) <= unreadableFor+every; c.pass(every) {
			withoutFiles(t, func() { _, _ = s.Get(id) })
			if readBetween && c.Sub(start) == unreadableFor/2 {
				if _, err := s.Prompt(id); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		}
		if n := s.Stats().References; n != references {
			t.Errorf("%s: %d references are left, want %d", what, n, references)
		}
	}
	f("each time", failureGap, false, 0)
	f("each time but once", failureGap, true, 1)
	f("at a few moments", failureGap+time.Second, false, 1)
}

func TestAReferenceThatCheckRefusesIsDropped(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	id := save(t, s, 1, 1)
	s.Close()
	s = openStore(t, dir, StoreOptions{Check: func(*State) error { return errors.New("another layout") }})
	if _, err := s.Get(id); !errors.Is(err, ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestCommitRefusesWhatIsNoState(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{Check: func(st *State) error { return storeLayout.Equal(&st.Layout) }})
	f := func(write func(path string)) {
		t.Helper()
		p, err := s.Reserve(stateBytes, Meta{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		write(p.Path())
		if ref, err := p.Commit(); err == nil {
			ref.Release()
			t.Error("no error")
		}
		p.Abort()
		if got := files(t, dir); len(got) != 0 || s.used() != 0 {
			t.Errorf("left: %v, %d bytes reserved", got, s.used())
		}
	}
	f(func(string) {})
	f(func(path string) { os.Remove(path) })
	f(func(path string) { os.WriteFile(path, []byte("nonsense"), 0o600) })
	f(func(path string) {
		writeState(t, path, testLayout(3, true, false, 2, F16, F16), 0, storeTokens, 1)
	})
}

// A server that is slow to save writes the file after the capture gave up.
func TestWhatIsSavedTooLateIsDeleted(t *testing.T) {
	f := func(o StoreOptions) {
		t.Helper()
		c := &clock{time.Unix(1e9, 0)}
		o.Now = c.now
		dir := t.TempDir()
		s := openStore(t, dir, o)
		kept := save(t, s, 1, 1)
		p, err := s.Reserve(stateBytes, Meta{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		p.Abort()
		writeState(t, p.Path(), storeLayout, 1, storeTokens, 2)
		c.pass(freshFor)
		next, err := s.Reserve(stateBytes, Meta{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{stateName(kept), metaName(kept), next.File()}
		slices.Sort(want)
		if got := files(t, dir); !slices.Equal(got, want) {
			t.Errorf("files %v: expected %v", got, want)
		}
	}
	f(StoreOptions{})
	f(StoreOptions{Budget: 3 * stateBytes})
	f(StoreOptions{Stored: storeLayout, Kernels: GoKernels(), Threads: 1})
}

// Nothing that the backend is tried out with stays for good, nor goes before it was used.
func TestFilesOfAProbeGoWithTheNextStoreThatIsOpened(t *testing.T) {
	dir := t.TempDir()
	paths, remove, err := Prober{Dir: dir}.files(2)
	if err != nil {
		t.Fatal(err)
	}
	openStore(t, dir, StoreOptions{})
	if got := files(t, dir); len(got) != 2 {
		t.Errorf("%v during the probe: expected two files", got)
	}
	remove()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("%v after the probe", got)
	}
	for _, name := range []string{paths[0], paths[1] + ".reply"} {
		if err := os.WriteFile(name, []byte("late"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	openStore(t, dir, StoreOptions{})
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("%v after the next store was opened", got)
	}
}

func TestIDsThatLeaveTheDirectoryAreNotFound(t *testing.T) {
	parent := t.TempDir()
	s := openStore(t, filepath.Join(parent, "slots"), StoreOptions{})
	outside := smuggle(t, filepath.Join(parent, "other"), "x/../../other/ssk-")
	for _, id := range []string{outside, "", "..", "../x", "0123456789abcdef-1/../2", "0123456789abcdef-", strings.Repeat("a", 300)} {
		if _, err := s.Get(id); !errors.Is(err, ErrNoReference) {
			t.Errorf("Get(%q): %v", id, err)
		}
		if _, err := s.Prompt(id); !errors.Is(err, ErrNoReference) {
			t.Errorf("Tokens(%q): %v", id, err)
		}
	}
}

// smuggle keeps a whole reference in dir, whose id begins with a way there.
func smuggle(t *testing.T, dir, way string) (id string) {
	t.Helper()
	o := openStore(t, dir, StoreOptions{})
	kept := save(t, o, 1, 1)
	id = way + kept
	data, err := os.ReadFile(o.metaPath(kept))
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(kept), []byte(id), 1)
	if err := os.WriteFile(o.metaPath(kept), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	return id
}

func TestAnotherSidecarsReferenceIsFound(t *testing.T) {
	dir := t.TempDir()
	why := ""
	a, b := openStore(t, dir, StoreOptions{}), openStore(t, dir, StoreOptions{OnDrop: func(_ Meta, reason string) { why = reason }})
	id := save(t, a, 1, 1)
	ref, err := b.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	a.Drop(id, "test")
	_ = ref.State.Layer(1).V[3] // still mapped
	ref.Release()
	if _, err := b.Get(id); err == nil || why != DropElsewhere {
		t.Errorf("after it was dropped: %v, and dropped as %q: expected an error and %q", err, why, DropElsewhere)
	}
}

func TestRefreshTakesNoteOfWhatAnotherSidecarDid(t *testing.T) {
	dir := t.TempDir()
	var dropped []string
	a := openStore(t, dir, StoreOptions{})
	b := openStore(t, dir, StoreOptions{OnDrop: func(m Meta, reason string) { dropped = append(dropped, m.ID+" "+reason) }})
	id := save(t, a, 1, 1)
	b.Refresh()
	if got := ids(b.All()); !slices.Equal(got, []string{id}) {
		t.Errorf("has %v after %s was kept", got, id)
	}
	a.Drop(id, "test")
	b.Refresh()
	if len(b.All()) > 0 || !slices.Equal(dropped, []string{id + " " + DropElsewhere}) {
		t.Errorf("has %v and dropped %v after %s was dropped", ids(b.All()), dropped, id)
	}
}

func TestAReferenceThatAnotherSidecarRemovedDoesNotComeBack(t *testing.T) {
	now := time.Unix(1e9, 0)
	dir := t.TempDir()
	a := openStore(t, dir, StoreOptions{})
	id := save(t, a, 1, 1)
	b := openStore(t, dir, StoreOptions{Now: func() time.Time { return now }})
	ref, err := b.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	a.Drop(id, "test")
	b.Hit(id, 10)
	now = now.Add(metaInterval)
	b.Refresh() // to which a reference in use stays known
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("after a hit: %v", got)
	}
	ref.Release()
	b.Close()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("after closing: %v", got)
	}
}

// Two sidecars that write the metadata of one reference must not write one file.
func TestMetadataAreWrittenUnderTheWritersOwnName(t *testing.T) {
	dir := t.TempDir()
	a := openStore(t, dir, StoreOptions{})
	id := save(t, a, 1, 1)
	b := openStore(t, dir, StoreOptions{})
	for _, s := range []*Store{a, b} {
		name := metaTmpName(s.run.id, id)
		if m := fileName.FindStringSubmatch(name); m == nil || m[1] != s.run.id {
			t.Errorf("%s is read as %v: expected a file of %s", name, m, s.run.id)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, metaTmpName(a.run.id, id)), 0o700); err != nil {
		t.Fatal(err) // in a's way alone
	}
	b.Hit(id, 10)
	b.Close()
	if rec, err := a.readMeta(id); err != nil || rec.Hits != 1 {
		t.Errorf("%d hits, %v: expected those that b wrote", rec.Hits, err)
	}
}

func TestOtherModelsReferencesAreKeptButNotUsed(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{Model: "one"})
	id := save(t, s, 1, 1)
	s.Close()
	var dropped []string
	s = openStore(t, dir, StoreOptions{Model: "two", Budget: 2 * stateBytes, OnDrop: func(m Meta, _ string) { dropped = append(dropped, m.ID) }})
	if _, err := s.Get(id); !errors.Is(err, ErrNoReference) {
		t.Errorf("got %v", err)
	}
	if st := s.Stats(); st.Bytes != stateBytes || st.References != 0 || len(s.All()) != 0 {
		t.Errorf("%+v", st)
	}
	save(t, s, 2, 1)
	save(t, s, 3, 1) // the foreign one goes first
	if st := s.Stats(); st.References != 2 || !slices.Equal(dropped, []string{id}) {
		t.Errorf("%+v, dropped %v: expected %s", st, dropped, id)
	}
}

func TestBudgetHoldsAndLeastValuedGoesFirst(t *testing.T) {
	now := time.Unix(1e9, 0)
	var dropped []string
	s := openStore(t, t.TempDir(), StoreOptions{
		Budget: 3*stateBytes + 10,
		Now:    func() time.Time { now = now.Add(time.Second); return now },
		OnDrop: func(m Meta, reason string) {
			dropped = append(dropped, m.ID)
			if reason != DropEvicted {
				t.Errorf("%s was dropped as %q: expected %q", m.ID, reason, DropEvicted)
			}
		},
	})
	a, b, c := save(t, s, 1, 1), save(t, s, 2, 1), save(t, s, 3, 1)
	s.Hit(a, 10)
	s.Hit(c, 1000)
	d := save(t, s, 4, 1) // b was never used
	e := save(t, s, 5, 2) // d neither
	f := save(t, s, 6, 2) // nor e
	if !slices.Equal(dropped, []string{b, d, e}) {
		t.Errorf("dropped %v: expected %v", dropped, []string{b, d, e})
	}
	s.Hit(f, 50)
	save(t, s, 7, 2) // all have a hit: the one that saved least
	if dropped[len(dropped)-1] != a {
		t.Errorf("dropped %v: expected %v last", dropped, a)
	}
	if st := s.Stats(); st.Bytes > s.o.Budget || st.References != 3 {
		t.Errorf("%+v", st)
	}
}

func TestFloodOfNovelPromptsLeavesWhatIsUsed(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := openStore(t, t.TempDir(), StoreOptions{Budget: 4 * stateBytes, Now: func() time.Time { return now }})
	var used []string
	for seed := range uint64(3) {
		id := save(t, s, seed, 1)
		s.Hit(id, 100)
		used = append(used, id)
	}
	for seed := range uint64(50) {
		save(t, s, 100+seed, 1) // each takes the place of the one before
	}
	for _, id := range used {
		if _, err := s.Prompt(id); err != nil {
			t.Errorf("%s was flushed: %v", id, err)
		}
	}
	for _, m := range s.All() {
		s.Hit(m.ID, 100)
	}
	if _, err := trySave(t, s, 999, 1); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("got %v: expected a refusal, all earn their place", err)
	}
	now = now.Add(24 * time.Hour) // what was popular yesterday gives way
	if _, err := trySave(t, s, 999, 1); err != nil {
		t.Errorf("after a day: %v", err)
	}
	if _, err := s.Reserve(5*stateBytes, Meta{}, 1000); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("larger than the budget: %v", err)
	}
}

func TestSmallerBudgetShrinksTheStore(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	for seed := range uint64(5) {
		save(t, s, seed, 1)
	}
	s.Close()
	evicted := 0
	s = openStore(t, dir, StoreOptions{Budget: 2 * stateBytes, OnDrop: func(Meta, string) { evicted++ }})
	if st := s.Stats(); st.References != 2 || st.Bytes != 2*stateBytes || len(files(t, dir)) != 4 || evicted != 3 {
		t.Errorf("%+v, files %v, told of %d: expected 2 references and 3 evicted", st, files(t, dir), evicted)
	}
	if n := ReferenceBytes(dir); n != 2*stateBytes {
		t.Errorf("the directory's references take %d bytes: expected %d", n, 2*stateBytes)
	}
}

func TestPinnedReferenceIsNeitherEvictedNorUnmapped(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{Budget: stateBytes})
	id := save(t, s, 1, 1)
	ref, err := s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trySave(t, s, 2, 1000); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("got %v", err)
	}
	s.Drop(id, "test")
	var sum byte
	for _, b := range ref.State.Layer(0).K {
		sum += b
	}
	ref.Release()
	ref.Release()
	if _, err := trySave(t, s, 2, 1); err != nil {
		t.Errorf("after the release: %v (%d)", err, sum)
	}
}

// The system allows a process so many mappings.
func TestOnlySoManyStatesStayMapped(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{})
	s.idle.most = 2
	use := func(id string) *Reference {
		t.Helper()
		ref, err := s.Get(id)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	f := func(what string, want ...string) {
		t.Helper()
		var mapped []string
		for id, e := range s.entries {
			if e.state != nil {
				mapped = append(mapped, id)
			}
		}
		slices.Sort(mapped)
		slices.Sort(want)
		if !slices.Equal(mapped, want) {
			t.Errorf("%s: %v are mapped, want %v", what, mapped, want)
		}
	}
	a, b, c := save(t, s, 1, 1), save(t, s, 2, 1), save(t, s, 3, 1)
	f("three were made", b, c)
	use(b).Release()
	inUse := use(a)
	f("one more is in use", a, b, c)
	inUse.Release()
	f("the one of longest ago went", a, b)
	inUse = use(a)
	use(c).Release()
	f("nothing in use goes", a, b, c)
	s.Drop(b, "test")
	inUse.Release()
	f("one was dropped", a, c)
	d := save(t, s, 4, 1)
	f("and another came", a, d)
	s.Close()
	f("closed")
	if n := s.idle.Len(); n != 0 {
		t.Errorf("%d are idle in a closed store", n)
	}
}

func TestNothingIsRankedWhereThereIsRoom(t *testing.T) {
	asked := 0
	s := openStore(t, t.TempDir(), StoreOptions{Budget: 3 * stateBytes, Now: func() time.Time { asked++; return time.Unix(1e9, 0) }})
	save(t, s, 1, 1)
	f := func(bytes int64, ranked bool) {
		t.Helper()
		s.mu.Lock()
		defer s.unlock()
		asked = 0
		if err := s.makeRoom(bytes, 1); err != nil || (asked > 0) != ranked {
			t.Errorf("%d bytes: %v, ranked: %t, want %t", bytes, err, asked > 0, ranked)
		}
	}
	f(2*stateBytes, false)
	f(2*stateBytes+1, true)
}

func TestScratchIsReusedAndRemoved(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	a, err := s.Scratch(stateBytes)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Scratch(stateBytes)
	if err != nil || a.Path() == b.Path() {
		t.Fatalf("the same file twice: %v", err)
	}
	for _, n := range []int{storeTokens, 2 * storeTokens, 3} {
		tokens, pos := make([]int32, n), make([]int32, n)
		for i := range pos {
			pos[i] = int32(i)
		}
		w, err := a.Create(storeLayout, 0, tokens, pos)
		if err != nil {
			t.Fatal(err)
		}
		fillNoise(w, 1)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		st, err := OpenState(a.Path())
		if err != nil {
			t.Fatal(err)
		}
		if want := storeLayout.FileBytes(n, n); st.Cells() != n || st.Size != want {
			t.Errorf("%d cells, %d bytes: expected %d and %d", st.Cells(), st.Size, n, want)
		}
		st.Close()
	}
	path := a.Path()
	a.Release()
	c, err := s.Scratch(stateBytes)
	if err != nil || c.Path() != path {
		t.Errorf("got %s, %v: expected the released one again", c.Path(), err)
	}
	s.Close()
	b.Release()
	c.Release()
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestScratchWhoseNameIsGoneIsNotUsedAgain: the backend would read another file, or none.
func TestScratchWhoseNameIsGoneIsNotUsedAgain(t *testing.T) {
	f := func(name string, change func(path string) error) {
		t.Helper()
		dir := t.TempDir()
		s := openStore(t, dir, StoreOptions{})
		a, err := s.Scratch(stateBytes)
		if err != nil {
			t.Fatal(err)
		}
		a.Release()
		if err := change(a.Path()); err != nil {
			t.Fatal(err)
		}
		b, err := s.Scratch(stateBytes)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w, err := b.Create(storeLayout, 0, make([]int32, storeTokens), []int32{0})
		if err != nil {
			t.Fatal(err)
		}
		fillNoise(w, 1)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if st, err := OpenState(b.Path()); err != nil {
			t.Errorf("%s: what was written next cannot be read by its name: %v", name, err)
		} else {
			st.Close()
		}
		b.Release()
		s.Close()
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("%s: left: %v", name, got)
		}
	}
	f("deleted", os.Remove)
	f("replaced", func(path string) error {
		return errors.Join(os.WriteFile(path+".new", []byte("short"), 0o600), os.Rename(path+".new", path))
	})
}

func TestStoreUnderManyUsers(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{Budget: 5 * stateBytes})
	var wg sync.WaitGroup
	for g := range uint64(6) {
		wg.Go(func() {
			for i := range uint64(30) {
				if id, err := trySave(t, s, g*1000+i, int(1+i%3)); err == nil {
					s.Hit(id, 10)
				}
				for _, m := range s.All() {
					ref, err := s.Get(m.ID)
					if err != nil {
						continue
					}
					_ = ref.State.Layer(1).V[0]
					ref.Release()
				}
				s.mu.Lock()
				if used := s.used(); used > s.o.Budget {
					t.Errorf("%d bytes are over the budget of %d", used, s.o.Budget)
				}
				s.mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestFullDirectoryRefuses(t *testing.T) {
	s := openStore(t, t.TempDir(), StoreOptions{})
	if _, err := s.Reserve(1<<60, Meta{}, 1); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("got %v", err)
	}
	if n := s.used(); n != 0 {
		t.Errorf("%d bytes stay reserved", n)
	}
}

func ExampleStore_Reserve() {
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	s, _ := OpenStore(dir, StoreOptions{Budget: 1 << 20, Model: "m"})
	defer s.Close()
	_, err := s.Reserve(1<<21, Meta{}, 1)
	fmt.Println(err)
	// Output: reference not admitted: 2097152 bytes are more than the budget of 1048576
}
