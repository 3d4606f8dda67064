package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// slotServer stands in for a llama-server that computes at once; save answers a request
// to save a slot.
func slotServer(t *testing.T, save http.HandlerFunc) *Backend {
	t.Helper()
	return restoringServer(t, save, func(http.ResponseWriter, *http.Request) {})
}

// restoringServer is a slotServer of which restore answers a request to restore a slot.
func restoringServer(t *testing.T, save, restore http.HandlerFunc) *Backend {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("action") {
		case "save":
			save(w, r)
		case "restore":
			restore(w, r)
		case "":
			fmt.Fprint(w, `{"timings": {"cache_n": 0, "prompt_n": 4, "prompt_ms": 1}}`)
		}
	}))
	t.Cleanup(server.Close)
	b := NewBackend(server.URL, "", time.Second)
	t.Cleanup(b.Close)
	return b
}

// fillInTwoStages has the server compute and save the first tokens of a prompt.
func fillInTwoStages(ctx context.Context, s *Store, b *Backend, saveWithin time.Duration) error {
	fl := &Filler{Backend: b, Kernels: GoKernels(), Store: s, Layout: storeLayout}
	_, err := fl.Fill(ctx, Fill{Tokens: make([]int32, 8), Threads: 1, SaveWithin: saveWithin, Stages: []FillStage{{To: 4}, {From: 4, To: 8}}})
	return err
}

// A scratch file that the server is to save to stays the fill's until that is done: the
// server would truncate what another request has mapped.
func TestFillWaitsForTheSaveOfAClientThatIsGone(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var saved atomic.Bool
	b := slotServer(t, func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		time.Sleep(50 * time.Millisecond)
		saved.Store(true)
		http.Error(w, "no room", http.StatusInternalServerError)
	})
	s := openStore(t, t.TempDir(), StoreOptions{})
	if err := fillInTwoStages(ctx, s, b, time.Minute); err == nil || !saved.Load() {
		t.Errorf("ended with %v, saved: %t", err, saved.Load())
	}
	if len(s.scratch.free) != 2 {
		t.Errorf("%d files for the next request: expected both, the server is done with them", len(s.scratch.free))
	}
}

func TestAFileThatTheServerMayStillSaveToIsNotUsedAgain(t *testing.T) {
	b := slotServer(t, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	if err := fillInTwoStages(context.Background(), s, b, time.Minute); err == nil {
		t.Error("no error")
	}
	if len(s.scratch.free) != 1 {
		t.Errorf("%d files for the next request: expected only the one that the server just reads", len(s.scratch.free))
	}
	s.Close()
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// A server reads what it is to restore between two batches, perhaps long after the client left.
func TestAFileThatTheServerMayStillReadIsNotUsedAgain(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	b := restoringServer(t, nil, func(http.ResponseWriter, *http.Request) {
		cancel()
		<-over
	})
	defer close(over)
	s := openStore(t, t.TempDir(), StoreOptions{})
	composed, err := s.Scratch(1)
	if err != nil {
		t.Fatal(err)
	}
	p := &progress{fl: &Filler{Backend: b}, composed: composed}
	if err := p.restore(ctx, 4); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v: expected the client to be gone", err)
	}
	p.close()
	if len(s.scratch.free) != 0 {
		t.Error("the file goes to the next request while the server may read it")
	}
}

// How long a save may take is the caller's to say: a server saves between two batches, and on a
// slow machine one batch takes minutes.
func TestFillWaitsForASaveAsLongAsItIsTold(t *testing.T) {
	over := make(chan struct{})
	b := slotServer(t, func(http.ResponseWriter, *http.Request) { <-over })
	defer close(over)
	s := openStore(t, t.TempDir(), StoreOptions{})
	if err := fillInTwoStages(context.Background(), s, b, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ended with %v: expected the time for saving to be over", err)
	}
}

// storeServer stands in for a llama-server with the slot directory dir. What it says it
// restored and found in its cache, and what it saves, can be changed.
type storeServer struct {
	dir              string
	restored, cached int // how many tokens more it says than there are
	slot             int
	layout           *Layout
	saved, pos       []int32 // of the state that it saves
	holds            int     // how many tokens are in its slot
}

func (s *storeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Filename string
		Prompt   []int32
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path := filepath.Join(s.dir, body.Filename)
	switch r.URL.Query().Get("action") {
	case "erase":
		s.holds = 0
	case "restore":
		state, err := OpenState(path)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		defer state.Close()
		s.holds = len(state.Tokens)
		fmt.Fprintf(w, `{"n_restored": %d}`, s.holds+s.restored)
	case "save":
		state, err := CreateState(path, s.layout, 1, s.saved, s.pos)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = state.Close()
	default:
		fmt.Fprintf(w, `{"timings": {"cache_n": %d, "prompt_n": 4, "prompt_ms": 1}, "id_slot": %d}`, s.holds+s.cached, s.slot)
	}
}

// TestFillBelievesNothingOfTheServer: all that it says and saves between two stages is compared
// with what it was told.
func TestFillBelievesNothingOfTheServer(t *testing.T) {
	f := func(name string, change func(*storeServer, *Fill), want error, says string) {
		t.Helper()
		dir := t.TempDir()
		store := openStore(t, dir, StoreOptions{})
		ref, err := store.Get(save(t, store, 1, 1))
		if err != nil {
			t.Fatal(err)
		}
		defer ref.Release()
		server := &storeServer{dir: dir, holds: 3, layout: storeLayout, saved: make([]int32, 4), pos: []int32{0, 1, 2, 3}}
		fill := Fill{Tokens: make([]int32, 8), Refs: []*Reference{ref}, Threads: 1, SaveWithin: time.Minute,
			Stages: []FillStage{{To: 4}, {Runs: []Run{{Src: 4, Dst: 4, Len: 2}}, From: 6, To: 8}}}
		change(server, &fill)
		h := httptest.NewServer(server)
		defer h.Close()
		b := NewBackend(h.URL, "", time.Second)
		defer b.Close()
		fl := &Filler{Backend: b, Kernels: GoKernels(), Store: store, Layout: storeLayout}
		switch done, err := fl.Fill(t.Context(), fill); {
		case want == nil && says == "":
			if err != nil || done.Tokens != 6 || done.Cells != 6 || server.holds != 6 {
				t.Errorf("%s: %+v, error %v, in the slot %d tokens; expected 6", name, done, err, server.holds)
			}
		case want != nil && !errors.Is(err, want), err == nil || !strings.Contains(err.Error(), says):
			t.Errorf("%s: error %v; expected %v, with %q", name, err, want, says)
		case errors.Is(err, ErrUnsent) != (want == ErrUnsent):
			t.Errorf("%s: error %v; expected only what never reached the server to be %q", name, err, ErrUnsent)
		}
	}
	all := []int32{0, 1, 2, 3}
	f("all is well", func(*storeServer, *Fill) {}, nil, "")
	f("fewer restored", func(s *storeServer, _ *Fill) { s.restored = -1 }, ErrNotTaken, "restored 5 tokens, 6 were written")
	f("more restored", func(s *storeServer, _ *Fill) { s.restored = 1 }, ErrNotTaken, "restored 7 tokens")
	f("another prompt in its cache", func(s *storeServer, _ *Fill) { s.cached = 2 }, ErrNotTaken, "found 2 tokens in its cache, 0 were restored")
	f("another slot", func(s *storeServer, _ *Fill) { s.slot = 1 }, ErrChanged, "slot 0 was asked for, slot 1 computed")
	f("another layout", func(s *storeServer, _ *Fill) { s.layout = testLayout(4, true, false, 2, Q8_0, F16) }, ErrChanged, "")
	f("fewer saved", func(s *storeServer, _ *Fill) { s.saved, s.pos = all[:3], all[:3] }, nil, "saved 3 tokens after computing up to 4")
	f("fewer tokens than cells", func(s *storeServer, _ *Fill) { s.saved = all[:3] }, nil, "saved 3 tokens after computing up to 4")
	f("no cell for the last", func(s *storeServer, _ *Fill) { s.pos = all[:3] }, nil, "after computing up to 4")
	f("a plan that leaves the last out", func(_ *storeServer, f *Fill) { f.Stages[1].Runs[0].Len = 1 }, nil, "position 5 would have no cell")
	f("from its start on", func(_ *storeServer, f *Fill) {
		f.Stages = []FillStage{{Runs: []Run{{Len: 5}}, From: 6, To: 8}}
	}, ErrUnsent, "position 5 would have no cell")
	f("keys that cannot be moved", func(_ *storeServer, f *Fill) { f.Stages[1].Runs[0].Delta = 1 }, nil, "the model's RoPE is not known")
}

// TestRowsKeepTheirDelta: what stood at 5 and comes to stand at 9 is turned by 4 more.
func TestRowsKeepTheirDelta(t *testing.T) {
	s := &State{Pos: []int32{4, 5, 6, 8}}
	if err := s.sortRows(&reader{}); err != nil {
		t.Fatal(err)
	}
	g := gather{}
	g.add(s, Run{Src: 5, Dst: 9, Len: 4, Delta: 4})
	want := []Run{{Src: 1, Dst: 0, Len: 3, Delta: 4}}
	if !slices.Equal(g.runs, want) || !slices.Equal(g.pos, []int32{9, 10, 12}) {
		t.Errorf("rows %+v at %v; expected %+v at 9, 10 and, where there is a cell, 12", g.runs, g.pos, want)
	}
}
