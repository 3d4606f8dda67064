package eval

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestRunOnARealServer measures an edited and an unrelated pair, cut short, and reads
// the report as a program and as a browser does.
func TestRunOnARealServer(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Context: 4096})
	dir := t.TempDir()
	o := Options{Config: measured(b.URL, b.SlotDir), Pairs: writeShortPairs(t, dir), Out: filepath.Join(dir, "out"), AnswerTokens: 4, Repeats: 3, Progress: io.Discard}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r, err := readReport(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Pairs) != 2 || !r.Summary.Complete || r.Summary.Groups["edited"].Decisions["shared"] != 1 {
		t.Fatalf("%d pairs, groups %+v: expected 2, the edited one shared", len(r.Pairs), r.Summary.Groups)
	}
	edited, other := &r.Pairs[0], &r.Pairs[1]
	if edited.Error != "" || edited.Similarity < .8 || edited.Reused < .5 || edited.KLMean <= 0 || edited.KLMean > 1 || len(edited.KL) == 0 || edited.AnswerCold == "" {
		t.Errorf("edited: %+v", edited)
	}
	if other.Error != "" || other.Decision != "cold" || other.KLMean > 1e-3 || !other.SameAnswer {
		t.Errorf("unrelated: %+v", other)
	}
	for _, p := range r.Pairs {
		if p.Repeats != 3 || p.Speedup != p.TTFTCold/p.TTFTShared {
			t.Errorf("%s: %d repeats, %v ms cold, %v ms shared, %vx; expected 3 repeats", p.ID, p.Repeats, p.TTFTCold, p.TTFTShared, p.Speedup)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(b.SlotDir, "*.bin")); len(left) != 0 {
		t.Errorf("left in the slot directory: %v", left)
	}
	dom := browse(t, filepath.Join(o.Out, "report.html")+"#edited-short")
	for _, want := range []string{`reused, R1:`, `unmatched`, "edited-short", "unrelated-short", "<svg"} {
		if !strings.Contains(dom, want) {
			t.Errorf("the page in a browser has no %q", want)
		}
	}
}

// TestTwoServersDifferByRounding compares a server with itself and with one that has no
// flash attention.
func TestTwoServersDifferByRounding(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Context: 2048, Slots: 1, FlashAttention: "on"})
	other := lab.StartBackend(t, lab.BackendOptions{Context: 2048, Slots: 1, FlashAttention: "off"})
	dir := t.TempDir()
	o := Options{Config: measured(b.URL, b.SlotDir), Other: other.URL, Pairs: writeShortPairs(t, dir), Out: filepath.Join(dir, "out"), AnswerTokens: 4, Limit: 1, Progress: io.Discard}
	if r := roundingRun(t, o); r.KLMean <= 0 || r.KLMean > .1 || len(r.Pairs) != 1 || r.Pairs[0].Tokens < 300 {
		t.Errorf("without flash attention: %+v; expected some divergence, below 0.1", r)
	}
	o.Other = strings.Replace(b.URL, "127.0.0.1", "localhost", 1)
	if r := roundingRun(t, o); r.KLMean > 1e-3 || r.SameAnswer != 1 || r.Top1 != 1 {
		t.Errorf("with itself: %+v", r)
	}
	tiny := filepath.Join(dir, "tiny.gguf")
	if err := tinymodel.WriteFile(tiny, tinymodel.Options{}); err != nil {
		t.Fatal(err)
	}
	o.Other = lab.StartBackend(t, lab.BackendOptions{Model: tiny}).URL
	if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "must serve one model") {
		t.Errorf("another model: %v", err)
	}
}

func roundingRun(t *testing.T, o Options) (r Rounding) {
	t.Helper()
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(o.Out, "rounding.json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// writeShortPairs cuts two real documents to some 400 tokens.
func writeShortPairs(t *testing.T, dir string) string {
	t.Helper()
	pairs, err := ReadPairs("pairs/small.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	const n = 1800
	text := pairs[0].Reference[:n]
	other := pairs[len(pairs)-1].Target[:n]
	middle := n / 2
	var out bytes.Buffer
	for _, p := range []Pair{
		{ID: "edited-short", Group: "edited", Reference: text, Target: text[:middle] + " The lighthouse was built of granite. " + text[middle:]},
		{ID: "unrelated-short", Group: unrelated, Reference: text, Target: other},
	} {
		if err := json.NewEncoder(&out).Encode(p); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "pairs.jsonl")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// browse is a page's DOM after its scripts ran in a real browser.
func browse(t *testing.T, file string) string {
	t.Helper()
	var browser string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("no chromium here: the page was not opened in a browser")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--virtual-time-budget=10000", "--dump-dom", "file://"+file)
	cmd.Stderr = &errs
	dom, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", browser, err, errs.String())
	}
	return string(dom)
}
