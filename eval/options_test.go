package eval

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/configs"
)

// measured is the configuration of a sidecar that is measured.
func measured(url, slotDir string) *configs.Config {
	c := configs.Default()
	c.Backend.URL, c.Backend.SlotDir = url, slotDir
	c.Backend.Library = "../bin/libsemshare.so"
	Measured(c)
	return c
}

// Nothing answers at the backend's address, and no folder is made for a report.
func TestOptionsAreCheckedBeforeAnyWork(t *testing.T) {
	dir := t.TempDir()
	pairs := writeShortPairs(t, dir)
	f := func(want string, change func(*Options)) {
		t.Helper()
		o := Options{Config: measured("http://127.0.0.1:1", dir), Pairs: pairs, Out: filepath.Join(dir, "out"), AnswerTokens: 1}
		change(&o)
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
		if _, err := os.Stat(o.Out); err == nil {
			t.Errorf("%q: the folder of the report was made", want)
		}
	}
	f("-1 repeats", func(o *Options) { o.Repeats = -1 })
	f("0 answer tokens", func(o *Options) { o.AnswerTokens = 0 })
	f("a limit of -3 pairs", func(o *Options) { o.Limit = -3 })
	f("the other server", func(o *Options) { o.Other = o.Config.Backend.URL + "/" })
	f(`"garbage" is not a base URL; want one like`, func(o *Options) { o.Other = "garbage" })
	f("a retention of 0.5 by the slot way", func(o *Options) { o.Config.Backend.Way, o.Config.Defaults.Retention = "slot", .5 })
	f("defaults.reuse is exact", func(o *Options) { o.Config.Defaults.Reuse = configs.ReuseExact })
}

func TestNoPairMeasuredIsNoPerfectAgreement(t *testing.T) {
	server := func() string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/props" {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			_, _ = io.WriteString(w, `{"model_path":"none.gguf"}`)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	earlier := writeEarlier(t, out, "rounding.json")
	o := Options{Config: measured(server(), dir), Other: server(), Pairs: writeShortPairs(t, dir), Out: out, AnswerTokens: 1, Progress: io.Discard}
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "edited-short could not be measured") {
		t.Errorf("%v; want it to name the pair", err)
	}
	earlier()
}
