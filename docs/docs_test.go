// Package docs holds the manual, and tests that it says what the code does: its
// configuration examples are valid, and its tables have every metric, label
// value, log field, reason and finding that there is, and no others.
package docs

//go:generate go run ./figures -root ..

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/semsharekv/semsharekv/configs"
)

// pages are the manual's and the README.
func pages(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("*.md")
	if err != nil || len(found) < 5 {
		t.Fatalf("pages %v: %v", found, err)
	}
	return append(found, "../README.md")
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var quoted = regexp.MustCompile("`([^`]+)`")

// table is what the table under a heading has in its rows: cells, trimmed.
func table(t *testing.T, file, heading string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, file), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", file, heading)
	}
	var rows [][]string
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "#") {
			break
		}
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows
}

// names are the code words in the first cells.
func names(rows [][]string) []string {
	var out []string
	for _, r := range rows {
		for _, m := range quoted.FindAllStringSubmatch(r[0], -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// same reports what is documented and does not exist, and the other way round.
func same(t *testing.T, where string, documented, there []string) {
	t.Helper()
	if len(there) == 0 {
		t.Errorf("%s: nothing was found in the code: the test looks in the wrong place", where)
	}
	for _, d := range documented {
		if !slices.Contains(there, d) {
			t.Errorf("%s: %q is documented, but not in the code", where, d)
		}
	}
	for _, w := range there {
		if !slices.Contains(documented, w) {
			t.Errorf("%s: %q is in the code, but not documented", where, w)
		}
	}
}

// blocks are the fenced YAML blocks of a page.
func blocks(page string) []string {
	var out []string
	for _, part := range strings.Split("\n"+page, "\n```yaml\n")[1:] {
		body, _, _ := strings.Cut(part, "\n```")
		out = append(out, body+"\n")
	}
	return out
}

// Every configuration that the manual and the README show is taken by the strict
// parser; other YAML is an object of Kubernetes.
func TestConfigurationExamplesAreValid(t *testing.T) {
	complete := func(c *configs.Config) {
		c.Backend.URL, c.Backend.SlotDir = "http://127.0.0.1:8081", "/dev/shm/slots"
	}
	taken := 0
	for _, page := range pages(t) {
		for _, block := range blocks(read(t, page)) {
			var object struct {
				Kind string `yaml:"kind"`
			}
			if err := yaml.Unmarshal([]byte(block), &object); err != nil {
				t.Errorf("%s: %v\n%s", page, err, block)
			}
			if object.Kind != "" {
				continue
			}
			taken++
			c, err := configs.Parse(page, []byte(block), complete)
			if err != nil {
				t.Errorf("%v\n%s", err, block)
				continue
			}
			for _, r := range c.Routes {
				if !leadsToAnEndpoint(r.Match.Path) {
					t.Errorf("%s: route %s: %q matches no path that is shared", page, r.Name, r.Match.Path)
				}
			}
		}
	}
	if taken < 4 {
		t.Errorf("%d examples were found: want at least 4", taken)
	}
}

// leadsToAnEndpoint tells whether a route's pattern matches a path that the README
// says is shared.
func leadsToAnEndpoint(pattern string) bool {
	shared := []string{"/v1/chat/completions", "/v1/completions", "/completion", "/v1/responses", "/v1/messages", "/infill"}
	return pattern == "" || slices.ContainsFunc(shared, func(p string) bool {
		ok, err := path.Match(pattern, p)
		return ok && err == nil
	})
}

var link = regexp.MustCompile(`\]\(([^)#:\s]*)(#[^)\s]*)?\)`)

// Links lead to files and headings that are there, those of other documents too.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range append(pages(t), "../ARCHITECTURE.md", "../CONTRIBUTING.md", "../CHANGELOG.md", "../eval/results/README.md", "../eval/pairs/README.md") {
		text := read(t, page)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, anchor := m[1], strings.TrimPrefix(m[2], "#")
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: link to %s: %v", page, target, err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, file)), anchor) {
				t.Errorf("%s: %s has no heading for #%s", page, file, anchor)
			}
		}
	}
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchors are those that a renderer makes of the headings.
func anchors(page string) []string {
	var out []string
	for line := range strings.Lines(page) {
		if heading, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			a := notInAnchors.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
			out = append(out, strings.ReplaceAll(a, " ", "-"))
		}
	}
	return out
}
