package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// standIn is a sharer that was told all about its backend, and stands in for that too: a real
// server does not fail, or say what is not so, when a test wants it to.
type standIn struct {
	t     *testing.T
	dir   string
	sh    *Sharer
	lv    *live
	asked []string // what it was asked for, and the slot
	fails string   // to do what, with a status of 500
	// restores is how many tokens it says it restored, saves what it saves of a slot, and cells
	// how many its agent says it made.
	restores, cells int
	saves           []int32
	beside          func() // what happens while it restores or saves; or nil
}

var standInLayout = bridge.Layout{Version: 4, Packed: true, Streams: 1, Layers: []bridge.LayerLayout{{KType: bridge.F16, VType: bridge.F16, KRow: 128, VRow: 128}}}

func startStandIn(t *testing.T, slots int) *standIn {
	t.Helper()
	s := &standIn{t: t, dir: t.TempDir()}
	b := bridge.NewBackend(startBackend(t, s.ServeHTTP).URL, "", time.Minute)
	t.Cleanup(b.Close)
	index, err := matcher.OpenIndex(matcher.IndexOptions{Secret: []byte("sixteen bytes .."), TTL: time.Hour, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = index.Close() })
	store, err := bridge.OpenStore(s.dir, bridge.StoreOptions{Model: "model"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s.sh = &Sharer{cfg: configs.Default(), log: zerolog.Nop(), metrics: NewMetrics(), backend: b, kernels: bridge.GoKernels(), index: index}
	rope, err := bridge.NewRoPE(bridge.RoPEParams{HeadDim: 64, Dims: 64, Base: 10000})
	if err != nil {
		t.Fatal(err)
	}
	filler := &bridge.Filler{Backend: b, Kernels: s.sh.kernels, Store: store, Layout: &standInLayout, RoPE: rope}
	s.lv = &live{probed: &bridge.Probed{Layout: standInLayout, RoPE: rope}, signer: matcher.IdentitySigner(1), store: store, stored: &standInLayout,
		filler: filler, slots: newSlots(slots), refKey: "model", tokenizer: tokenizer{backend: b}, ctx: t.Context(), cancel: func() {}}
	s.lv.costs = newCosts(s.lv.probed, standInLayout.BytesPerToken())
	s.sh.live.Store(s.lv)
	stopped := make(chan struct{}) // nothing is probed again
	close(stopped)
	s.sh.stopped = stopped
	t.Cleanup(s.sh.running.Wait)
	return s
}

func (s *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Filename string
		Slot     int `json:"id_slot"`
	}
	_ = json.NewDecoder(r.Body).Decode(&body)
	action, slot := r.URL.Query().Get("action"), fmt.Sprint(body.Slot)
	switch {
	case action != "":
		slot = strings.TrimPrefix(r.URL.Path, "/slots/")
	case r.URL.Path == "/completion":
		action = "compute"
	default:
		http.NotFound(w, r)
		return
	}
	s.asked = append(s.asked, action+" "+slot)
	path := filepath.Join(s.dir, body.Filename)
	if s.beside != nil && (action == "restore" || action == "save") {
		s.beside()
	}
	var err error
	switch action {
	case s.fails:
		err = fmt.Errorf("cannot %s", action)
	case "restore":
		if filepath.Ext(path) == ".recipe" {
			err = os.WriteFile(path+".reply", fmt.Appendf(nil, `{"agent":1,"cells":%d}`, s.cells), 0o600)
		}
	case "save":
		err = writeState(path, s.saves)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, `{"n_restored":%d,"timings":{"cache_n":0}}`, s.restores)
}

func writeState(path string, tokens []int32) error {
	pos := make([]int32, len(tokens))
	for i := range pos {
		pos[i] = int32(i)
	}
	w, err := bridge.CreateState(path, &standInLayout, 0, tokens, pos)
	if err != nil {
		return err
	}
	return w.Close()
}

// numbered are n tokens, all different.
func numbered(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(10 + i)
	}
	return out
}

// keep has a prompt kept as a tenant's.
func (s *standIn) keep(tenant string, generation int, tokens []int32) (id string) {
	s.t.Helper()
	p, err := s.lv.store.Reserve(standInLayout.FileBytes(len(tokens), len(tokens)), bridge.Meta{Tenant: tenant, Generation: generation}, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := writeState(p.Path(), tokens); err != nil {
		s.t.Fatal(err)
	}
	ref, err := p.Commit()
	if err != nil {
		s.t.Fatal(err)
	}
	ref.Release()
	return ref.ID
}

// decision is one on a prompt of those tokens.
func (s *standIn) decision(tenant string, tokens []int32) *decision {
	body := []byte(`{"prompt":"p"}`)
	return &decision{Body: body, State: StateCold, Slot: -1, sh: s.sh, lv: s.lv, book: s.lv.slots, tokens: tokens, expect: -1, over: make(chan struct{}),
		req: &request{Body: body, Tenant: tenant, Endpoint: EndpointCompletion, Policy: configs.Default().Defaults}}
}

// holding is decision with a slot that holds nobody knows what.
func (s *standIn) holding(tenant string, tokens []int32) *decision {
	d := s.decision(tenant, tokens)
	d.slot, _ = s.lv.slots.acquire(s.t.Context(), tenant, tokens, 1, 0)
	return d
}

// prefixPlan takes the first n of the tokens over, moved by that many positions.
func prefixPlan(id string, tokens []int32, n, moved int) *planned {
	p := &planned{Plan: &matcher.Plan{Refs: []string{id}, Tokens: make([]matcher.PlanToken, len(tokens))}}
	p.Spans = []matcher.Span{{From: n, To: len(tokens)}}
	for i := range p.Tokens {
		p.Tokens[i].Pos = int32(i - moved)
		if i >= n {
			p.Tokens[i].Reason = matcher.Tail
		}
	}
	return p
}
