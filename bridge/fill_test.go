package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	p := &progress{fl: &Filler{Backend: b}, scratch: []*ScratchFile{composed}, composed: composed}
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
