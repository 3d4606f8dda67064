package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The figures are those of the reports: whoever changes reports draws them anew.
func TestFiguresAreOfTheReports(t *testing.T) {
	runs, err := readRuns(filepath.Join("..", "..", "eval", "results"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		want, err := f.svg(runs)
		if err != nil {
			t.Errorf("%s: %v", f.file, err)
			continue
		}
		got, err := os.ReadFile(f.file)
		if err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not drawn from the reports in eval/results: run go run ./docs/figures", f.file)
		}
	}
}

// What is drawn is what the reports say: every shared pair has its mark.
func TestEverySharedPairIsDrawn(t *testing.T) {
	runs, err := readRuns(filepath.Join("..", "..", "eval", "results"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range runs {
		drawn, shared := 0, 0
		for _, g := range groups {
			drawn += len(r.shared(g.name))
		}
		for _, p := range r.pairs {
			if p.Decision == "shared" {
				shared++
			}
		}
		if drawn != shared || shared == 0 {
			t.Errorf("%s, %s way: %d of %d shared pairs belong to a group that is drawn", r.model, r.way, drawn, shared)
		}
	}
}
