package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

func TestAServerIsAwayThatIsNotThereOrLoads(t *testing.T) {
	f := func(what string, want bool, answer http.HandlerFunc) {
		t.Helper()
		s := httptest.NewServer(answer)
		if answer == nil {
			s.Close()
		} else {
			defer s.Close()
		}
		gone := false
		b := NewBackend(s.URL, "", time.Second)
		defer b.Close()
		b.Gone = func(error) { gone = true }
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err := b.Props(ctx); err == nil || gone != want {
			t.Errorf("%s: %v, away: %v, want %v", what, err, gone, want)
		}
	}
	status := func(n int, message string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(n)
			fmt.Fprintf(w, `{"error":{"message":%q}}`, message)
		}
	}
	f("nobody listens", true, nil)
	f("it loads its model", true, status(http.StatusServiceUnavailable, "Loading model"))
	f("something in between has enough to do", false, status(http.StatusServiceUnavailable, "busy"))
	f("it refuses", false, status(http.StatusUnauthorized, "Invalid API Key"))
	f("it is slow", false, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// xllamacpp's server is none, so what llama-server's own answers is written here.
func TestARouterOfModelsIsSaidToBeOne(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"role":"router","max_instances":4,"models_autoload":true,"default_generation_settings":{"params":null,"n_ctx":0}}`)
	}))
	defer s.Close()
	b := NewBackend(s.URL, "", time.Second)
	defer b.Close()
	if _, err := b.Look(context.Background()); !errors.Is(err, ErrRouter) {
		t.Errorf("%v, want that it is a router", err)
	}
}

// The tests' server has no such adapter.
func TestActivatedAdaptersAreRefusedByName(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `[{"id":0,"path":"a.gguf","scale":0,"alora_invocation_string":"<check>","alora_invocation_tokens":[27,9]}]`)
	}))
	defer s.Close()
	b := NewBackend(s.URL, "", time.Second)
	defer b.Close()
	if _, _, err := b.Adapters(context.Background()); !errors.Is(err, ErrUnshareable) || !strings.Contains(err.Error(), "a.gguf is an activated one") {
		t.Errorf("%v, want that a.gguf is refused", err)
	}
}

func TestPropsNameWhatChanged(t *testing.T) {
	was := Props{ModelPath: "m", Build: "b1", Slots: 4, Context: 4096, LoRA: "[]", Template: "t", Start: "x"}
	f := func(change func(*Props), want string) {
		t.Helper()
		now := was
		change(&now)
		if got := was.Differs(now); got != want {
			t.Errorf("%+v: %q, want %q", now, got, want)
		}
	}
	f(func(*Props) {}, "")
	f(func(p *Props) { p.Slots = 2 }, "the number of slots")
	f(func(p *Props) { p.Start = "y" }, "the mark of its start")
	f(func(p *Props) { p.Template = "u" }, "something else")
}

// llama-server takes the number of a slot modulo that of its slots.
func TestAServerWithFewerSlotsIsNoticed(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Slots: 2})
	backend := NewBackend(b.URL, "", time.Second)
	defer backend.Close()
	f := func(slot int, want error) {
		t.Helper()
		if _, err := backend.Prefill(context.Background(), slot, []int32{5, 6, 7}); !errors.Is(err, want) {
			t.Errorf("slot %d of two: %v, want %v", slot, err, want)
		}
	}
	f(1, nil)
	f(3, ErrChanged)
}
