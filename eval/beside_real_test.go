package eval

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
	"github.com/semsharekv/semsharekv/proxy"
)

// smallModel is a small part of the work of the real one, and enough of it for sharing to pay.
func smallModel(t *testing.T) string {
	return tinymodel.Make(t, tinymodel.Options{Layers: 4, Heads: 4, HeadsKV: 2, FF: 512, Context: 4096})
}

// serving is a sidecar as serve starts it, and a client of it.
func serving(t *testing.T, cfg *configs.Config) (*sidecar, *backend) {
	t.Helper()
	cfg.Listen, cfg.Admin = Listen, Listen
	server, err := proxy.New(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	s := &sidecar{server: server, sharer: server.Sharer(), ended: make(chan error, 1), reports: make(chan proxy.Report, 1)}
	if err := s.serve(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	if err := s.ready(t.Context(), io.Discard); err != nil {
		t.Fatal(err)
	}
	return s, newBackend(s.url, "")
}

// ask returns what the sidecar did with a prompt.
func (s *sidecar) ask(t *testing.T, client *backend, text string) proxy.Report {
	t.Helper()
	if _, _, err := client.chat(t.Context(), text, -1); err != nil {
		t.Fatal(err)
	}
	r, err := s.last(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The slot directory of a measured server may be that of a sidecar that serves:
// calibrations lie there.
func TestMeasuringBesideASidecarThatServes(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: smallModel(t)})
	dir := t.TempDir()
	pairs, err := ReadPairs(writeShortPairs(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir, cfg.Backend.Library = b.URL, b.SlotDir, "../bin/libsemshare.so"
	s, client := serving(t, cfg)
	for _, text := range []string{pairs[0].Reference, pairs[1].Target} {
		if r := s.ask(t, client, text); r.NotKept != nil {
			t.Fatal(r.NotKept)
		}
	}
	kept := references(t, b.SlotDir, 2)

	out := filepath.Join(dir, "out")
	o := Options{Config: measured(b.URL, b.SlotDir), Pairs: filepath.Join(dir, "pairs.jsonl"), Out: out, AnswerTokens: 1, Limit: 1, Progress: io.Discard}
	t.Run("in a full directory nothing is measured, and an earlier report stays", func(t *testing.T) {
		earlier := writeEarlier(t, out, "report.json")
		o := o
		o.Config = measured(b.URL, b.SlotDir)
		o.Config.Store.Budget = 1 << 20
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is left alone: raise store.budget_bytes") {
			t.Errorf("%v", err)
		}
		earlier()
	})
	t.Run("eval measures, whatever the tenants and routes are", func(t *testing.T) {
		o.Config.Defaults.Tenant.Source = "api_key"
		plain := configs.Route{Match: configs.Match{Path: "/v1/*/*"}, Policy: o.Config.Defaults}
		plain.Reuse = configs.ReuseExact
		o.Config.Routes = []configs.Route{plain}
		Measured(o.Config)
		if err := Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		r, err := readReport(out)
		if err != nil {
			t.Fatal(err)
		}
		if d := r.Pairs[0].Decision; d != "shared" {
			t.Errorf("the edited pair went %s: %s", d, r.Pairs[0].Reason)
		}
	})
	t.Run("calibrate measures with all cells, of usual plans", func(t *testing.T) {
		d := &o.Config.Defaults
		d.Retention, d.Unrepaired, d.Seam, d.AgentFollowers, d.CriticalFollowers, d.Critical = .5, configs.UnrepairedAccept, 256, 4, 12, nil
		var said bytes.Buffer
		if err := Calibrate(t.Context(), o, &said); err == nil || !strings.Contains(err.Error(), "of a kind") {
			t.Errorf("of one pair: %v", err)
		}
		r, err := readReport(out)
		if err != nil {
			t.Fatal(err)
		}
		want := configs.Default().Defaults
		if s := r.Summary.Settings; s.Unrepaired != "cold" || s.Seam != want.Seam || s.AgentFollowers != want.AgentFollowers ||
			s.AfterCritical != want.CriticalFollowers || !slices.Equal(s.Critical, want.Critical) {
			t.Errorf("it measured by %+v; want plans by the defaults", s)
		}
		if got := r.Summary.Settings.Retention; got != 1 || o.Config.Defaults.Retention != .5 {
			t.Errorf("it measured at a retention of %v; want 1, and the configuration left as it was", got)
		}
	})
	if left := references(t, b.SlotDir, 2); !slices.Equal(left, kept) {
		t.Errorf("left are %v: expected %v", left, kept)
	}
	if r := s.ask(t, client, pairs[0].Target); r.State != proxy.StateShared {
		t.Errorf("after measuring the sidecar went %s: %s", r.State, r.Reason)
	}
}

// A sidecar that serves takes over what lies in the slot directory.
func TestWhatIsMeasuredServesNobody(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: smallModel(t)})
	pairs, err := ReadPairs(writeShortPairs(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	m, err := startSidecar(t.Context(), measured(b.URL, b.SlotDir), zerolog.Nop(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	client := newBackend(m.url, "")
	if r := m.ask(t, client, pairs[0].Reference); r.NotKept != nil {
		t.Fatal(r.NotKept)
	}
	references(t, b.SlotDir, 1)
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir, cfg.Backend.Library = b.URL, b.SlotDir, "../bin/libsemshare.so"
	s, user := serving(t, cfg)
	if r := s.ask(t, user, pairs[0].Target); r.State == proxy.StateShared || len(r.Refs) > 0 {
		t.Errorf("a user's prompt went %s, by %v", r.State, r.Refs)
	}
	if err := m.forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	references(t, b.SlotDir, 1) // the user's
}

// references are those in the slot directory.
func references(t *testing.T, dir string, want int) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "ssk-*.json"))
	if err != nil || len(all) != want {
		t.Fatalf("%v, %v: expected %d references", all, err, want)
	}
	return all
}

// The backend answers no more when the run is broken off.
func TestABrokenRunReportsBeforeItTidiesUp(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: smallModel(t)})
	dir := t.TempDir()
	file := writeShortPairs(t, dir)
	pairs, err := ReadPairs(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stuck := stickyBackend(t, b.URL, pairs[1].Target[200:220], interrupt) // behind what all begin with
	o := Options{Config: measured(stuck, b.SlotDir), Pairs: file, Out: filepath.Join(dir, "out"), AnswerTokens: 1, Progress: io.Discard}
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, o) }()
	select {
	case err = <-ended:
	case <-time.After(2 * time.Minute):
		t.Fatal("it did not end")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v: expected that it was interrupted", err)
	}
	r, err := readReport(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Pairs) != 1 || r.Summary.Complete || r.Pairs[0].Error != "" {
		t.Errorf("%d pairs, complete: %v; expected the first alone", len(r.Pairs), r.Summary.Complete)
	}
}

// stickyBackend passes requests on until one has the text: then it interrupts, and answers
// nothing any more.
func stickyBackend(t *testing.T, backend, text string, interrupt func()) string {
	t.Helper()
	to, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	pass.Transport = &http.Transport{DisableKeepAlives: true} // llama-server closes idle connections
	var sticks atomic.Bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/apply-template" && bytes.Contains(body, []byte(text)) {
			sticks.Store(true)
			interrupt()
		}
		if sticks.Load() {
			<-r.Context().Done()
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s.URL
}
