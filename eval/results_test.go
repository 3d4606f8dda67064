package eval

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables into the READMEs")

const (
	tablesBegin = "<!-- tables: made by `go test ./eval -run Results -update` -->\n"
	tablesEnd   = "<!-- end of tables -->\n"
)

// groupsInWords are the groups of eval/pairs in the README's order.
var groupsInWords = [][2]string{
	{"number", "a number, and a question about it"},
	{"template", "the fields of a form"},
	{"edited", "a document edited in up to 8 places"},
	{"reordered", "documents in another order, and what they are about"},
	{"sought", "documents in another order, and a fact in one of them"},
	{"opinion", "documents in another order, and open questions"},
	{"retrieved", "passages found by a search, in another order, one of them another"},
	{"releases", "two releases of a document"},
	{"synonyms", "synonyms all over (3 to 25 %)"},
	{unrelated, "an unrelated document"},
}

// The tables of the READMEs are what the reports say.
func TestResultsAreInTheREADMEs(t *testing.T) {
	runs := AllPublished()
	columns := make([][]Result, len(runs))
	var long strings.Builder
	for i := range runs {
		columns[i] = readResults(t, &runs[i])
		slices.SortStableFunc(columns[i], func(a, b Result) int { return groupRank(a.Group) - groupRank(b.Group) })
		fmt.Fprintf(&long, "\n**%s** (%s)\n\n%s", title(&runs[i]), links(runs[i].Reports), table(columns[i]))
	}
	long.WriteByte('\n')
	checkBetween(t, "results/README.md", long.String())
	checkBetween(t, "../README.md", briefTable(runs, columns))
}

func readResults(t *testing.T, run *Published) []Result {
	t.Helper()
	for _, name := range run.Reports {
		report, err := readReport(filepath.Join("results", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Pairs {
			if r.Error != "" {
				t.Errorf("%s: %s failed: %s", name, r.ID, r.Error)
			}
		}
	}
	results, err := run.Pairs("results")
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func title(run *Published) string {
	s := run.Model + ", " + run.Way
	if run.Way == SlotWay {
		s += " way"
	}
	if run.Settings != "" {
		s += ", " + run.Settings
	}
	return s
}

func groupRank(group string) int {
	return slices.IndexFunc(groupsInWords, func(g [2]string) bool { return g[0] == group })
}

func links(dirs []string) string {
	var out []string
	for _, d := range dirs {
		out = append(out, fmt.Sprintf("[%s](%s/report.json)", d, d))
	}
	return strings.Join(out, ", ")
}

func table(results []Result) string {
	var b strings.Builder
	b.WriteString("| pair | tokens | similarity | decision | recomputed | TTFT cold | TTFT shared | sooner | KL mean (max) | top-1 |\n")
	b.WriteString("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, r := range results {
		decision := r.Decision
		if r.Reason != "" {
			decision += " (" + r.Reason + ")"
		}
		fmt.Fprintf(&b, "| %s | %d | %.2f | %s | %.1f %% | %.1f s | %.2f s | %.1fx | %.4f (%.2f) | %.2f |\n",
			r.ID, r.Tokens, r.Similarity, decision, 100*r.Recomputed, r.TTFTCold/1000, r.TTFTShared/1000, r.Speedup, r.KLMean, r.KLMax, r.Top1)
	}
	return b.String()
}

// briefTable has a column for each run with default settings; a model is named in its
// first.
func briefTable(runs []Published, columns [][]Result) string {
	var b strings.Builder
	b.WriteString("\n| what changed |")
	rule := "\n| --- |"
	for _, run := range runs {
		if run.Settings != "" {
			continue
		}
		if run.Way == SlotWay {
			b.WriteString(" " + run.Model + ",")
		}
		b.WriteString(" " + run.Way + " |")
		rule += " --- |"
	}
	b.WriteString(rule + "\n")
	for _, g := range groupsInWords {
		b.WriteString("| " + g[1] + " |")
		for i, run := range runs {
			if run.Settings == "" {
				b.WriteString(" " + brief(columns[i], g[0]) + " |")
			}
		}
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	return b.String()
}

// brief is a group's median speed-up, its range, and the mean KL of the pairs that were
// shared: a pair that stayed cold loses nothing, and would make that look small.
func brief(results []Result, group string) string {
	var speedups []float64
	var kl float64
	shared := 0
	for _, r := range results {
		if r.Group == group {
			speedups = append(speedups, r.Speedup)
			if r.Decision != "cold" {
				kl += r.KLMean
				shared++
			}
		}
	}
	n := len(speedups)
	if n == 0 {
		return "not measured"
	}
	if shared == 0 {
		return "cold"
	}
	of := ""
	if shared < n {
		of = fmt.Sprintf(", %d of %d shared", shared, n)
	}
	slices.Sort(speedups)
	return fmt.Sprintf("%sx (%s to %s)%s, KL %.4f", short(interval(speedups).Median), short(speedups[0]), short(speedups[n-1]), of, kl/float64(shared))
}

func short(x float64) string {
	if x < 10 {
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.0f", x)
}

// checkBetween compares what stands between the marks of a file, or writes it.
func checkBetween(t *testing.T, file, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tablesBegin)
	has, after, ok2 := strings.Cut(rest, tablesEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the lines %q and %q", file, tablesBegin, tablesEnd)
	}
	switch {
	case has == want:
	case *update:
		if err := os.WriteFile(file, []byte(before+tablesBegin+want+tablesEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what the reports say: run go test ./eval -run Results -update", file)
	}
}
