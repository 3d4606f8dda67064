package eval

import (
	"path/filepath"
	"strings"
	"testing"
)

const goodLine = `{"id":"a","group":"g","reference":"r","target":"t"}` + "\n"

func TestReadPairs(t *testing.T) {
	f := func(text string, want int) {
		t.Helper()
		pairs, err := readPairs("p.jsonl", strings.NewReader(text))
		if err != nil || len(pairs) != want {
			t.Fatalf("%q: %d pairs, %v; want %d", text, len(pairs), err, want)
		}
	}
	f(goodLine, 1)
	f(strings.TrimSpace(goodLine), 1)
	f("\n"+goodLine+"\n", 1)
	f(goodLine+`{"id":"b","group":"g","reference":"r","target":"t","answer":"42"}`, 2)
	f("  \t\n"+goodLine, 1)
}

func TestReadPairsNamesTheLineOfEveryFault(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		_, err := readPairs("p.jsonl", strings.NewReader(text))
		if err == nil {
			t.Fatalf("%q: no error", text)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Fatalf("%q: %q does not say %q", text, err, w)
			}
		}
	}
	f("", "p.jsonl holds no pairs")
	f(goodLine+"{broken", "p.jsonl:2: not a pair")
	f(`{"group":"g","reference":"r","target":"t"}`, `p.jsonl:1: field "id" is missing`)
	f(`{"id":"a","reference":"r","target":"t"}`, `field "group" is missing`)
	f(`{"id":"a","group":"g","target":"t"}`, `field "reference" is missing`)
	f(`{"id":"a","group":"g","reference":"r","target":""}`, `field "target" is missing or empty`)
	f(`{"id":7,"group":"g","reference":"r","target":"t"}`, `p.jsonl:1: field "id" is 7; want a text`)
	f(`{"id":"a","group":"g","reference":"r","target":"t","anwser":"42"}`, `p.jsonl:1: field "anwser" is not known`)
	f(`{"id":"a","group":"g","reference":"r","taget":"t"}`, `p.jsonl:1: field "taget" is not known`)
	f(goodLine+goodLine, `p.jsonl:2: id "a" was used in line 1 already`)
	f(`{"id":"a","id":"b","group":"g","reference":"r","target":"t"}`, `p.jsonl:1: field "id" is given twice`)
	f(goodLine+"[]\n"+goodLine, "p.jsonl:2:", "p.jsonl:3:")
}

func TestReadPairsCountsTheFaultsOfAFileOfAnotherKind(t *testing.T) {
	_, err := readPairs("p.jsonl", strings.NewReader(strings.Repeat("text\n", 500)))
	if err == nil || !strings.HasSuffix(err.Error(), "\nand 490 more") || strings.Count(err.Error(), "\n") != 10 {
		t.Errorf("got %v", err)
	}
}

func TestReadPairsNamesAFileThatCannotBeRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.jsonl")
	if _, err := ReadPairs(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
}

func TestThePairsInTheRepositoryAreGood(t *testing.T) {
	for _, name := range []string{"report.jsonl", "small.jsonl", "tuning.jsonl"} {
		pairs, err := ReadPairs(filepath.Join("pairs", name))
		if err != nil {
			t.Fatal(err)
		}
		groups := map[string]int{}
		for _, p := range pairs {
			groups[p.Group]++
			if p.Reference == p.Target {
				t.Errorf("%s: %s: both texts are the same", name, p.ID)
			}
			if p.Group == "number" && (p.Answer == "" || strings.Contains(p.Reference, p.Answer) || !strings.Contains(p.Target, p.Answer)) {
				t.Errorf("%s: %s: the answer %q must be in the target alone", name, p.ID, p.Answer)
			}
			if p.Group == "sought" && (p.Answer == "" || !strings.Contains(p.Reference, p.Answer) || !strings.Contains(p.Target, p.Answer)) {
				t.Errorf("%s: %s: the answer %q must be in both texts", name, p.ID, p.Answer)
			}
		}
		if len(groups) != len(groupsInWords) {
			t.Errorf("%s: groups %v, want %d", name, groups, len(groupsInWords))
		}
	}
}

func TestNoTuningTextIsReported(t *testing.T) {
	read := func(name string) []Pair {
		pairs, err := ReadPairs(filepath.Join("pairs", name))
		if err != nil {
			t.Fatal(err)
		}
		return pairs
	}
	reported := map[string]string{}
	for _, p := range read("report.jsonl") {
		for _, paragraph := range strings.Split(p.Reference+"\n\n"+p.Target, "\n\n") {
			if len(paragraph) > 200 { // shorter ones are form text and questions
				reported[paragraph] = p.ID
			}
		}
	}
	for _, p := range read("tuning.jsonl") {
		for _, paragraph := range strings.Split(p.Reference+"\n\n"+p.Target, "\n\n") {
			if id := reported[paragraph]; id != "" {
				t.Errorf("%s and %s share a paragraph: %.60q…", id, p.ID, paragraph)
			}
		}
	}
}
