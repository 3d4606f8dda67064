package proxy

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// refusedBackend is a watch over a backend whose model was refused, tenants kept apart. Its
// /tokenize fails while failing is set.
func refusedBackend(t *testing.T) (w *watch, props bridge.Props, failing *atomic.Bool) {
	t.Helper()
	failing = new(atomic.Bool)
	b := bridge.NewBackend(startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/props":
			fmt.Fprint(w, `{"total_slots":2,"model_path":"m.gguf"}`)
		case r.URL.Path == "/tokenize" && failing.Load():
			http.Error(w, "no room", http.StatusBadGateway)
		case r.URL.Path == "/tokenize":
			fmt.Fprint(w, `{"tokens":[1,2,3]}`)
		default:
			fmt.Fprint(w, `{"timings":{"cache_n":0}}`)
		}
	}).URL, "", time.Minute)
	t.Cleanup(b.Close)
	cfg := configs.Default()
	cfg.Defaults.Tenant.Source = "header"
	w = &watch{sh: &Sharer{cfg: cfg, backend: b, log: zerolog.Nop(), metrics: NewMetrics()}}
	props, err := b.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	props.Start = "now"
	return w, props, failing
}

// TestABookThatCouldNotBeBegunIsTriedAgain, though not at once.
func TestABookThatCouldNotBeBegunIsTriedAgain(t *testing.T) {
	w, props, failing := refusedBackend(t)
	failing.Store(true)
	w.keepBook(t.Context(), props)
	begun := func(want bool, when string) {
		t.Helper()
		d := &decision{sh: w.sh}
		if d.goUnshared(); (d.book != nil) != want {
			t.Errorf("%s: there is a book: %t, expected %t", when, d.book != nil, want)
		}
	}
	begun(false, "while it fails")
	failing.Store(false)
	w.renewBook(t.Context(), props)
	begun(false, "right after")
	w.bookFrom = time.Now()
	w.renewBook(t.Context(), props)
	begun(true, "later")
}

// A backend that is left alone since it dies of sharing serves by a book, like any that nothing is
// shared with.
func TestABackendThatIsLeftAloneHasABook(t *testing.T) {
	w, props, _ := refusedBackend(t)
	for range maxLosses {
		w.sh.broken(props)
	}
	if !w.sh.breaks.lately(buildAndModel(props)) {
		t.Fatal("it is not left alone")
	}
	w.refuse(t.Context(), props, "", maxReprobe)
	if d := (&decision{sh: w.sh}); !w.refused.stands(props, "") {
		t.Error("it is probed again at once")
	} else if d.goUnshared(); d.book == nil {
		t.Error("there is no book")
	}
}

// TestABookInUseOutlivesARefusalThatLapses, for as long again: else everybody's prompts were cold
// until the longest answer is over.
func TestABookInUseOutlivesARefusalThatLapses(t *testing.T) {
	w, props, _ := refusedBackend(t)
	w.keepBook(t.Context(), props)
	u := w.sh.unshared.Load()
	if props, _ = w.sh.backend.Look(t.Context()); !u.users.begin() {
		t.Fatal("there is no book")
	}
	w.refused = refusal{props: props, model: bridge.ModelStamp(props.ModelPath), pause: time.Minute, until: time.Now().Add(-time.Second)}
	if w.connect(t.Context()); u.users.isClosed() || u.ctx.Err() != nil {
		t.Error("the book was ended while a request goes by it")
	}
	w.refused.until = time.Now().Add(-time.Hour)
	if !w.refused.overdue() {
		t.Error("a refusal that lapsed an hour ago is not overdue")
	}
	u.users.end()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // what it then finds out is nothing
	defer cancel()
	if w.connect(ctx); !u.users.isClosed() || u.ctx.Err() == nil {
		t.Error("the book was not ended before the backend was tried out again")
	}
}

// TestABrokenAnswerTakesNobodysPlaceInASlotBeforeItHasBegun: that to an empty prompt does not.
func TestABrokenAnswerTakesNobodysPlaceInASlotBeforeItHasBegun(t *testing.T) {
	w, props, _ := refusedBackend(t)
	w.keepBook(t.Context(), props)
	f := func(name string, o outcome, want string) {
		t.Helper()
		d := &decision{sh: w.sh, req: &request{Tenant: "y", Body: []byte(`{"prompt":""}`)}}
		d.goUnshared()
		for _, sl := range d.book.all {
			sl.tenant, sl.tokens = "x", []int32{1}
		}
		d.takeOwn(t.Context())
		sl := d.slot
		d.leaveUnshared(t.Context(), o)
		if sl.tenant != want {
			t.Errorf("%s: the slot is %q's, expected %q's", name, sl.tenant, want)
		}
	}
	const echoed = `{"content":"","generation_settings":{"stop":["data: {"]},"timings":{"cache_n":0,"prompt_n":0}}`
	f("a whole stream's end", answered(eventStream, "data: "+echoed+"\n\n", errClientGone), "")
	f("a part of what it asked for", answered(eventStream, hidden, errClientGone), "")
	f("no stream", answered(document, echoed, errClientGone), "")
	f("a word", answered(eventStream, `data: {"content":"a","stop":false}`+"\n\n", errClientGone), "y")
}
