package proxy

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestABackendThatDiesOfTheProbeIsLeftAlone: what starts it again would do so in vain, and
// without the sidecar it would serve.
func TestABackendThatDiesOfTheProbeIsLeftAlone(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 1024})
	deaths := 0
	cfg := configs.Default()
	cfg.Backend.URL = dyingOf(t, b, &deaths, func(action string, _ []byte) bool { return action == "save" })
	cfg.Backend.SlotDir, cfg.Backend.Library = b.SlotDir, "../bin/libsemshare.so"
	sh := &Sharer{cfg: cfg, log: zerolog.Nop(), metrics: NewMetrics(), backend: bridge.NewBackend(cfg.Backend.URL, "", time.Second), scales: scales{turn: newGate()}}
	sh.loadKernels()
	defer sh.backend.Close()
	w := &watch{sh: sh}
	for range 2 * maxLosses {
		w.connect(context.Background())
	}
	// The front brings it back at once, so that what net/http sends again kills it again.
	if why := sh.Ready(); deaths > 2*maxLosses || why == nil || why.Error() != backendFatal {
		t.Errorf("the backend died %d times in %d probes, and it is said: %v; want %d probes at most and %q", deaths, 2*maxLosses, why, maxLosses, backendFatal)
	}
}

// What dies of fills is left alone too, for an hour; another build is not.
func TestABackendThatDiesOfFillsIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sh := &Sharer{log: zerolog.Nop()}
		lately := func(build string) bool { return sh.breaks.lately(buildAndModel(liveOf(build).probed.Props)) }
		for i := range maxLosses {
			if lately("b") {
				t.Fatalf("left alone after %d losses; want %d", i, maxLosses)
			}
			lv := liveOf("b")
			lv.since = time.Now()
			for range maxLosses { // fills that break off with it, one start of the server's
				d := &decision{sh: sh, lv: lv, slot: &slot{}, req: &request{}}
				if reason := d.fillFailed(t.Context(), fmt.Errorf("restoring: %w", io.EOF)); reason != coldFill {
					t.Fatalf("reason %q, want %q", reason, coldFill)
				}
			}
		}
		if !lately("b") || lately("another") {
			t.Errorf("the backend is left alone: %v, another build: %v; want the first alone", lately("b"), lately("another"))
		}
		if time.Sleep(lossMemory + time.Second); lately("b") {
			t.Error("it is left alone for ever")
		}
		for range maxLosses { // starts of a server that took fills for long
			lv := liveOf("b")
			lv.since = time.Now()
			time.Sleep(youngFor)
			sh.fillBroke(lv)
		}
		if lately("b") {
			t.Error("a server that is restarted now and then is left alone")
		}
	})
}

// What the agent ends is not counted here.
func TestWhatBreaksOff(t *testing.T) {
	f := func(err error, want bool) {
		t.Helper()
		if got := brokeOff(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	f(io.ErrUnexpectedEOF, true)
	f(fmt.Errorf("sent once more: %w", unix.ECONNREFUSED), true)
	f(fmt.Errorf("%w: %w", bridge.ErrLost, io.EOF), false)
	f(fmt.Errorf("%w: %w", bridge.ErrUnsent, unix.ECONNREFUSED), false)
	f(&bridge.BackendError{Status: 500}, false)
	f(context.DeadlineExceeded, false)
}
