package eval

import (
	"regexp"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/matcher"
	"github.com/semsharekv/semsharekv/proxy"
)

func sample() *Report {
	plan := []matcher.PlanToken{
		{Ref: 0, Reason: matcher.Reused, Pos: 4}, {Ref: 0, Reason: matcher.Reused, Pos: 5},
		{Ref: -1, Reason: matcher.Critical}, {Ref: 1, Reason: matcher.Reused, Pos: 6}, {Ref: -1, Reason: matcher.Tail},
	}
	pieces := []string{"</script>", " two", " 45", "<b>", "\n"}
	report := &proxy.Report{State: proxy.StateShared, Refs: []string{"first", "second"}, Plan: plan}
	good := Result{ID: "a-1", Group: "a", Tokens: 5, Decision: "shared", Similarity: .8, Reused: .6, Speedup: 12, KLMean: .01,
		AnswerCold: "<i>cold</i>", AnswerShared: "shared", tokens: viewTokens(report, pieces)}
	bad := Result{ID: "b-1", Group: "b", Error: "the backend <went> away"}
	results := []Result{good, bad}
	return &Report{Pairs: results, Summary: Summary{Groups: summarise(results), Order: groupNames(results), Complete: true}}
}

func TestViewTokensJoinsRunsOfOneSource(t *testing.T) {
	want := []viewRun{{"reused", 0, 4, 2}, {"critical", -1, 0, 1}, {"reused", 1, 6, 1}, {"tail", -1, 0, 1}}
	got := sample().Pairs[0].tokens.Runs
	if len(got) != len(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("run %d: got %v, want %v", i, got[i], want[i])
		}
	}
}

func TestViewTokensWithoutAPlan(t *testing.T) {
	f := func(r proxy.Report, want ...viewRun) {
		t.Helper()
		got := viewTokens(&r, make([]string, 10)).Runs
		if len(got) != len(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	}
	f(proxy.Report{State: proxy.StateCold}, viewRun{"cold", -1, 0, 10})
	f(proxy.Report{State: proxy.StateExact, Reused: 7}, viewRun{"exact", -1, 0, 7}, viewRun{"cold", -1, 0, 3})
	f(proxy.Report{State: proxy.StateExact, Reused: 10}, viewRun{"exact", -1, 0, 10})
}

func TestPageNeedsNothingFromOutsideAndEscapesTexts(t *testing.T) {
	b, err := sample().html()
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	if found := regexp.MustCompile(`(?i)(src|href)="?(https?:)?//|@import|url\(`).FindString(page); found != "" {
		t.Fatalf("the page asks for %q", found)
	}
	if n := strings.Count(page, "</script>"); n != 1 {
		t.Fatalf("%d script ends, want 1: a text can end the script", n)
	}
	for _, want := range []string{"a-1", "the backend &lt;went&gt; away", "&lt;i&gt;cold", `"r":"critical"`, "<circle"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "ZgotmplZ") {
		t.Error("html/template refused a value")
	}
}

func TestJoinCharacters(t *testing.T) {
	f := func(raw []string, want ...string) {
		t.Helper()
		in := make([][]byte, len(raw))
		for i, r := range raw {
			in[i] = []byte(r)
		}
		got := joinCharacters(in)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%q: got %q, want %q", raw, got, want)
			}
		}
	}
	f([]string{"a", "b"}, "a", "b")
	f([]string{" \xe6", "\x97", "\xa5", "本"}, " ", "", "日", "本")
	f([]string{"\xff", "x"}, "\uFFFD", "x")
	f([]string{"é\xe6", "x"}, "é", "\uFFFDx")
}
