package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
	"github.com/semsharekv/semsharekv/matcher"
)

// dying passes all on to a real server, which it kills, and starts again, where it is asked to
// restore a recipe. deaths counts.
func dying(t *testing.T, b *lab.Backend, deaths *int) string {
	t.Helper()
	return dyingOf(t, b, deaths, func(action string, file []byte) bool {
		return action == "restore" && bytes.HasPrefix(file, []byte("sskr"))
	})
}

// dyingOf does so where fatal says so of an action and the file that it names.
func dyingOf(t *testing.T, b *lab.Backend, deaths *int, fatal func(action string, file []byte) bool) string {
	t.Helper()
	to, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		file, _ := os.ReadFile(filepath.Join(b.SlotDir, gjson.GetBytes(body, "filename").String()))
		if fatal(r.URL.Query().Get("action"), file) {
			*deaths++
			b.Kill()
			if err := b.Launch(context.Background()); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// TestAnAgentThatEndsTheBackendIsNotTriedForEver: what starts the backend again would do so
// in vain.
func TestAnAgentThatEndsTheBackendIsNotTriedForEver(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real llama-server")
	}
	model := tinymodel.Make(t, tinymodel.Options{})
	b := lab.StartBackend(t, lab.BackendOptions{Model: model, Context: 1024, Preload: agentLibrary(t)})
	deaths := 0
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir, cfg.Backend.Library = dying(t, b, &deaths), b.SlotDir, "../bin/libsemshare.so"
	sh := &Sharer{cfg: cfg, log: zerolog.Nop(), metrics: NewMetrics(), backend: bridge.NewBackend(cfg.Backend.URL, "", time.Second), scales: scales{turn: newGate()}}
	sh.loadKernels()
	defer sh.backend.Close()
	probe := func() (*live, error) {
		props, err := sh.backend.Look(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return (&watch{sh: sh}).probe(context.Background(), props)
	}
	for i := range maxLosses {
		if _, err := probe(); !errors.Is(err, bridge.ErrLost) {
			t.Fatalf("the backend was lost while it was probed, %d times before: %v", i, err)
		}
	}
	lv, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	defer lv.retire()
	if deaths != maxLosses || lv.agent() {
		t.Errorf("the backend died %d times, and the agent fills slots: %v; want %d, and that it does not", deaths, lv.agent(), maxLosses)
	}
	lv.probed.Props.Build += " of tomorrow"
	prober := bridge.Prober{Backend: sh.backend, Props: lv.probed.Props, Dir: b.SlotDir, Model: lv.model, Kernels: sh.kernels}
	if err := sh.chooseWay(context.Background(), lv, prober); err == nil || deaths != maxLosses+1 {
		t.Errorf("another build died %d times (%v): want that the agent is tried anew", deaths-maxLosses, err)
	}
}

func liveOf(build string) *live {
	return &live{ctx: context.Background(), signer: matcher.IdentitySigner(1), probed: &bridge.Probed{Props: bridge.Props{Build: build, ModelPath: "m"}}}
}

var errRecipeLost = fmt.Errorf("a recipe: %w", bridge.ErrLost)

// A server that survives the try-out and dies of recipes is not given them for ever.
func TestLossesByRecipesEndTheAgent(t *testing.T) {
	sh := &Sharer{log: zerolog.Nop(), cfg: configs.Default()}
	for i := range maxLosses {
		lv := liveOf("b")
		if sh.losses.many(buildAndModel(lv.probed.Props)) {
			t.Fatalf("given up after %d losses; want %d", i, maxLosses)
		}
		for range maxLosses { // recipes that break off with it, one start of the server's
			lv.agentFailed(sh, errRecipeLost)
		}
	}
	if err := sh.tryAgent(context.Background(), liveOf("b"), bridge.Prober{}); !errors.Is(err, errAgentFatal) {
		t.Errorf("tried again after %d losses: %v", maxLosses, err)
	}
	if sh.losses.many(buildAndModel(liveOf("another").probed.Props)) {
		t.Error("another build is to blame too")
	}
}

func TestRestartsNowAndThenDoNotEndTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := &Sharer{log: zerolog.Nop()}
		for range 2 * maxLosses {
			liveOf("b").agentFailed(sh, errRecipeLost)
			time.Sleep(lossMemory + time.Second)
		}
		if sh.losses.many(buildAndModel(liveOf("b").probed.Props)) {
			t.Errorf("given up after losses %v apart", lossMemory)
		}
	})
}

// TestWhatEndsTheAgentForAWhile: after it one failure more is enough.
func TestWhatEndsTheAgentForAWhile(t *testing.T) {
	f := func(err error, times int) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			sh, lv := &Sharer{log: zerolog.Nop(), metrics: NewMetrics()}, liveOf("b")
			for i := range times {
				if !lv.agent() {
					t.Errorf("%v: ended after %d; want %d", err, i, times)
				}
				lv.agentFailed(sh, err)
			}
			for range 2 {
				told := func() bool { return testutil.ToFloat64(sh.metrics.Agent) == 1 }
				if time.Sleep(agentRest - time.Second); lv.agent() || told() {
					t.Errorf("%v: not ended, or tried again too early, or the metric says so", err)
				}
				if time.Sleep(2 * time.Second); !lv.agent() || !told() {
					t.Errorf("%v: not tried again, or the metric says so", err)
				}
				lv.agentFailed(sh, err)
			}
			time.Sleep(2 * agentRest)
		})
	}
	f(errors.New("its own"), maxFailures)
	f(fmt.Errorf("%w (%w)", bridge.ErrNoAgent, &bridge.BackendError{}), 1)
}

func TestWhatIsNotTheAgentsFaultDoesNotEndIt(t *testing.T) {
	sh, lv := &Sharer{log: zerolog.Nop()}, liveOf("b")
	for _, err := range []error{bridge.ErrNotTaken, bridge.ErrNoCells, bridge.ErrUnsent} {
		for range maxFailures {
			lv.agentFailed(sh, fmt.Errorf("a recipe: %w", err))
		}
	}
	if why := lv.whyNoAgent.Load(); why != nil {
		t.Error(*why)
	}
}
