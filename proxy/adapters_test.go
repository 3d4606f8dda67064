package proxy

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// TestAnEmptyListOfAdaptersSaysNothingToABackendWithoutAny: it is shared as if it were not
// there. A list of some is looked after everywhere.
func TestAnEmptyListOfAdaptersSaysNothingToABackendWithoutAny(t *testing.T) {
	f := func(body string, lv *live, want string) {
		t.Helper()
		sh := &Sharer{}
		sh.live.Store(lv)
		for _, reuse := range []configs.Reuse{configs.ReuseFuzzy, configs.ReuseOff} {
			g := &request{Tenant: "us", Adapters: adaptersOf(gjson.Parse(body)), Off: offSeveral, Policy: configs.Policy{Reuse: reuse}}
			d := sh.prepare(context.Background(), g)
			if parted := g.Tenant != "us"; g.Adapters != want || parted != (want != "") || d.sh.unpinned.adapted.Load() > 0 != (want != "") {
				t.Errorf("%s, %s: adapters %q, want %q; parted from others: %v; in any slot: %d",
					body, reuse, g.Adapters, want, parted, sh.unpinned.adapted.Load())
			}
			d.finish(t.Context(), outcome{})
		}
	}
	with := func(n int) *live {
		return &live{probed: &bridge.Probed{Props: bridge.Props{Adapters: n}}, slots: newSlots(1)}
	}
	for _, lv := range []*live{nil, with(0), with(1)} {
		f(`{}`, lv, "")
		f(`{"lora":null}`, lv, "")
		f(`{"lora":[{"id":0,"scale":1}]}`, lv, `[{"id":0,"scale":1}]`)
		f(`{"lora":null,"lora":[{"id":0}]}`, lv, `[{"id":0}]`)
	}
	f(`{"lora":[]}`, nil, "[]")
	f(`{"lora":[]}`, with(0), "")
	f(`{"lora":[]}`, with(1), "[]")
}

// TestSettingScalesEndsSharingWhereTheyAreOthers, or cannot be told, and until that is known
// nothing is filled or kept.
func TestSettingScalesEndsSharingWhereTheyAreOthers(t *testing.T) {
	f := func(name, says string, status int, heeded, wantShared bool) {
		t.Helper()
		var now atomic.Pointer[string]
		asked, answer := make(chan struct{}, 9), make(chan struct{})
		b := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case now.Load() == nil:
				_, _ = w.Write([]byte(`[{"id":0,"path":"a","scale":1}]`))
			default:
				asked <- struct{}{}
				<-answer
				w.WriteHeader(status)
				_, _ = w.Write([]byte(*now.Load()))
			}
		})
		sh := &Sharer{backend: bridge.NewBackend(b.URL, "", time.Minute), metrics: NewMetrics(), scales: scales{turn: newGate()}}
		props := bridge.Props{Slots: 1}
		set, err := sh.askAdapters(context.Background(), &props)
		if err != nil {
			t.Fatal(err)
		}
		lv := &live{probed: &bridge.Probed{Props: props}, slots: newSlots(1), scales: set}
		lv.ctx, lv.cancel = context.WithCancel(context.Background())
		sh.live.Store(lv)
		now.Store(&says)
		done := sh.setting(context.Background())
		if !lv.rescaled(sh) {
			t.Errorf("%s: the book is believed while scales are being set", name)
		}
		done(heeded)
		if heeded {
			<-asked
			late, cancel := context.WithCancel(context.Background())
			cancel()
			if !lv.rescaled(sh) || sh.scales.turn.enter(late) {
				t.Errorf("%s: the book is believed, or others set scales, before it is known what they are", name)
			}
		}
		close(answer)
		within(t, name+" is over", func() bool { return len(sh.scales.turn) == 0 })
		if shared := sh.live.Load() == lv && !lv.rescaled(sh); shared != wantShared {
			t.Errorf("%s: shared is %v, want %v", name, shared, wantShared)
		}
		sh.running.Wait()
	}
	f("the same", `[{"id":0,"path":"a","scale":1}]`, 200, true, true)
	f("another scale", `[{"id":0,"path":"a","scale":0.5}]`, 200, true, false)
	f("one more, not applied", `[{"id":0,"path":"a","scale":1},{"id":1,"path":"b","scale":0}]`, 200, true, false)
	f("not told", `{}`, 500, true, false)
	f("refused", `[{"id":0,"path":"a","scale":0.5}]`, 200, false, true)
}
