package bridge

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// crashDir, when set, makes the test binary the child that is killed.
const crashDir = "SEMSHARE_STORE_CRASH_DIR"

const crashBudget = 6

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		saveUntilKilled(dir)
	}
	os.Exit(m.Run())
}

// saveUntilKilled saves, uses and evicts references without end, and tells on
// standard output what it did, after it was done.
func saveUntilKilled(dir string) {
	die := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	s, err := OpenStore(dir, StoreOptions{Model: "model", Budget: crashBudget * stateBytes,
		OnDrop: func(m Meta, _ string) { fmt.Println("dropped", m.ID) }})
	if err != nil {
		die(err)
	}
	tokens, pos := make([]int32, storeTokens), make([]int32, storeTokens)
	for i := range pos {
		pos[i] = int32(i)
	}
	for seed := uint64(0); ; seed++ {
		p, err := s.Reserve(stateBytes, Meta{}, 1000)
		if err != nil {
			die(err)
		}
		w, err := CreateState(p.Path(), storeLayout, 1, tokens, pos)
		if err != nil {
			die(err)
		}
		fillNoise(w, seed)
		w.Close()
		if seed%5 == 4 {
			p.Abort()
			continue
		}
		ref, err := p.Commit()
		if err != nil {
			die(err)
		}
		fmt.Println("committed", ref.ID)
		ref.Release()
		s.Hit(ref.ID, int(seed%7))
		if sf, err := s.Scratch(stateBytes); err == nil {
			if w, err := sf.Create(storeLayout, 0, tokens, pos); err == nil {
				w.Close()
			}
			sf.Release()
		}
	}
}

func TestStoreRecoversFromKillAtAnyMoment(t *testing.T) {
	dir := t.TempDir()
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	r := rand.New(rand.NewPCG(1, 2))
	alive := map[string]bool{}
	for round := range rounds {
		out := killAfter(t, dir, time.Duration(r.IntN(40_000))*time.Microsecond)
		lines := bufio.NewScanner(bytes.NewReader(out))
		for lines.Scan() {
			verb, id, _ := strings.Cut(lines.Text(), " ")
			alive[id] = verb == "committed"
		}
		verifyRecovered(t, dir, round, alive)
		if t.Failed() {
			return
		}
	}
	if len(alive) == 0 {
		t.Error("the children were killed before they saved anything")
	}
}

// killAfter runs a child, waits until it has saved something, kills it d later, and
// returns what it wrote.
func killAfter(t *testing.T, dir string, d time.Duration) []byte {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	first := make([]byte, 1)
	if n, _ := pipe.Read(first); n == 1 {
		out.Write(first)
		time.AfterFunc(d, func() { cmd.Process.Kill() })
	}
	_, _ = out.ReadFrom(pipe)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v: %s", err, errs.Bytes())
	}
	return out.Bytes()
}

// verifyRecovered opens the store as the next run would. Everything that was
// committed and not evicted must be there and whole, nothing else may be.
func verifyRecovered(t *testing.T, dir string, round int, alive map[string]bool) {
	t.Helper()
	s := openStore(t, dir, StoreOptions{Budget: crashBudget * stateBytes, OnDrop: func(m Meta, reason string) {
		t.Errorf("round %d: %s was dropped: %s", round, m.ID, reason)
	}})
	defer s.Close()
	if st := s.Stats(); st.Bytes > s.o.Budget {
		t.Errorf("round %d: %+v", round, st)
	}
	found := map[string]bool{}
	for _, m := range s.All() {
		found[m.ID] = true
		ref, err := s.Get(m.ID)
		if err != nil {
			t.Errorf("round %d: %v", round, err)
			continue
		}
		ref.Release()
	}
	missing := 0
	for id, committed := range alive {
		if committed && !found[id] {
			missing++
			delete(alive, id)
		}
	}
	// The one that was being evicted, its eviction not yet told.
	if missing > 1 {
		t.Errorf("round %d: %d committed references are missing", round, missing)
	}
	for _, name := range files(t, dir) {
		id := strings.TrimSuffix(strings.TrimPrefix(name, "ssk-"), filepath.Ext(name))
		if !found[id] {
			t.Errorf("round %d: %s is left", round, name)
		}
	}
	for id := range found {
		alive[id] = true
	}
}
