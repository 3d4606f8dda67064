package bridge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestWhatOthersRequestsDoToTheProbeIsNoWordOnTheBackend: none of it makes a healthy server
// one that cannot be shared with, or that empties its slots.
func TestWhatOthersRequestsDoToTheProbeIsNoWordOnTheBackend(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 2048, Slots: 2, NoRAMCache: true})
	model, err := OpenModel(b.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	to, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	straight := NewBackend(b.URL, "", time.Second)
	defer straight.Close()
	save := func(r *http.Request, _ string) bool { return r.URL.Query().Get("action") == "save" }
	single := func(_ *http.Request, body string) bool {
		return strings.Contains(body, `"id_slot":0`) && tokensIn(body) == probeTokens+1
	}
	beside := func(_ *http.Request, body string) bool { return strings.Contains(body, `"id_slot":1`) }
	use := func() { _, _ = straight.Prefill(ctx, 0, randomTokens(50, 7)) }
	empty := func() { _ = straight.Erase(ctx, 0) }

	// f has something be done in the slot before the at-th request of the probe that it fits.
	f := func(name string, fits func(*http.Request, string) bool, at int, do func(), want error) {
		t.Helper()
		seen := 0
		pass := httputil.NewSingleHostReverseProxy(to)
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if fits(r, string(body)) {
				if seen++; seen == at {
					do()
				}
			}
			pass.ServeHTTP(w, r)
		}))
		defer front.Close()
		backend := NewBackend(front.URL, "", time.Second)
		defer backend.Close()
		props, err := backend.Props(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Prober{Backend: backend, Props: props, Dir: b.SlotDir, Model: model, Kernels: GoKernels()}.Probe(ctx)
		switch {
		case seen < at:
			t.Fatalf("%s: %d such requests, want %d", name, seen, at)
		case !errors.Is(err, want) || errors.Is(err, ErrUnshareable):
			t.Errorf("%s: %v, want %v", name, err, want)
		case err == nil && got.Volatile:
			t.Errorf("%s: the server is said to empty its slots", name)
		}
	}
	f("nothing", save, 1, func() {}, nil)
	f("used before it was saved", save, 1, use, ErrTaken)
	f("emptied before it was saved", save, 1, empty, ErrTaken)
	f("used before what was restored is looked for", single, 1, use, nil)
	f("used while another slot is at work", beside, 1, use, ErrTaken)
	f("emptied while another slot is at work, once", beside, 1, empty, nil)
}

func tokensIn(body string) int {
	_, list, _ := strings.Cut(body, `"prompt":[`)
	list, _, _ = strings.Cut(list, "]")
	return strings.Count(list, ",") + 1
}
