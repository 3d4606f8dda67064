package docs

import (
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Imports are read from the sources, not asked of go list, so that a cached result of this
// test does not outlive them.
func TestImportsAreThoseOfTheArchitecture(t *testing.T) {
	text, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for _, rule := range regexp.MustCompile(`(?m)^    (\S+) +→ (.+)$`).FindAllStringSubmatch(string(text), -1) {
		want[rule[1]] = rule[2]
	}
	imports := map[string][]string{}
	for _, pattern := range []string{"../*.go", "../*/*.go", "../*/*/*.go"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			from, _ := filepath.Rel("..", filepath.Dir(name))
			if from == "." {
				from = "main"
			} else if file.Name.Name == "main" {
				continue // a tool
			}
			for _, i := range file.Imports {
				path, _ := strconv.Unquote(i.Path.Value)
				if to, ours := strings.CutPrefix(path, "github.com/semsharekv/semsharekv/"); ours && !strings.HasSuffix(name, "_test.go") {
					imports[from] = append(imports[from], to)
				}
			}
		}
	}
	have := map[string]string{}
	for from, to := range imports {
		slices.Sort(to)
		have[from] = strings.Join(slices.Compact(to), ", ")
	}
	if !maps.Equal(have, want) {
		t.Errorf("imports are %v; ARCHITECTURE.md has %v", have, want)
	}
}
