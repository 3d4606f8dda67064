package eval

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// writeEarlier writes a report of an earlier run; the check that is returned reports where
// it, or anything beside it, is not as it was.
func writeEarlier(t *testing.T, dir, name string) (unchanged func()) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if b, err := os.ReadFile(file); string(b) != "earlier" {
			t.Errorf("the earlier %s is %q, %v", name, b, err)
		}
		if all, err := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(all, []string{file}) {
			t.Errorf("in the folder are %v, %v: expected the earlier %s alone", all, err, name)
		}
	}
}

// The backend is not there: had it been asked, the error would say so.
func TestAFolderThatTakesNoReportEndsTheRunBeforeItBegins(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(out string) {
		t.Helper()
		o := Options{Config: measured("http://127.0.0.1:1", dir), Pairs: writeShortPairs(t, dir), Out: out, AnswerTokens: 1}
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "cannot write a report") {
			t.Errorf("into %s: %v", out, err)
		}
	}
	f(filepath.Join(file, "below"))
	if _, err := os.Stat("/proc/self/fd"); err == nil {
		f("/proc/self") // a folder in which no file can be made
	}
}

func TestAReportThatItsFolderDoesNotTakeIsKeptElsewhere(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(t.TempDir(), "out")
	out, err := openOutput(dir, "report.json")
	if err != nil {
		t.Fatal(err)
	}
	defer out.close()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	err = out.write("report.json", []byte("figures"))
	if err == nil {
		t.Fatal("no error")
	}
	kept := regexp.MustCompile(`but in (\S+): `).FindStringSubmatch(err.Error())
	if kept == nil {
		t.Fatalf("%v: expected to be told where it is", err)
	}
	if b, err := os.ReadFile(kept[1]); string(b) != "figures" {
		t.Errorf("%s has %q, %v", kept[1], b, err)
	}
}

func TestAReportTakesItsNameWhenItIsComplete(t *testing.T) {
	dir := t.TempDir()
	earlier := writeEarlier(t, dir, "report.json")
	out, err := openOutput(dir, "report.json")
	if err != nil {
		t.Fatal(err)
	}
	out.close()
	earlier()
	if out, err = openOutput(dir, "report.json"); err != nil {
		t.Fatal(err)
	}
	defer out.close()
	if err := out.write("report.json", []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(dir, "report.json"))
	if err != nil || info.Size() != 3 || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v: expected the new one, that anybody may read", info, err)
	}
}
