package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// Lengths of a text in tokens of SmolLM2, before the chat template.
const (
	minTokens = 2000
	maxTokens = 5000
)

// textSet names the texts of one file of pairs.
type textSet struct {
	// prose are "package:path" of Debian documents. Every pair starts in
	// another of them or at another place of it.
	prose []string
	// releases are documents of Go modules in two versions.
	releases []release
}

type release struct {
	module, old, new, path string
}

var reportTexts = textSet{
	prose: []string{
		"developers-reference:usr/share/developers-reference/_sources/pkgs.rst.txt",
		"developers-reference:usr/share/developers-reference/_sources/best-pkging-practices.rst.txt",
		"developers-reference:usr/share/developers-reference/_sources/resources.rst.txt",
		"developers-reference:usr/share/developers-reference/_sources/beyond-pkging.rst.txt",
		"debian-policy:usr/share/doc/debian-policy/policy.html/_sources/ch-opersys.rst.txt",
		"debian-policy:usr/share/doc/debian-policy/policy.html/_sources/ch-files.rst.txt",
		"debian-policy:usr/share/doc/debian-policy/policy.html/_sources/ch-source.rst.txt",
		"git-doc:usr/share/doc/git-doc/user-manual.txt",
		"git-doc:usr/share/doc/git-doc/MyFirstContribution.txt",
		"git-doc:usr/share/doc/git-doc/SubmittingPatches.txt",
	},
	releases: []release{
		{"github.com/spf13/cobra", "v1.4.0", "v1.7.0", "user_guide.md"},
		{"github.com/spf13/viper", "v1.18.0", "v1.20.0", "README.md"},
		{"github.com/prometheus/prometheus", "v0.48.1", "v0.52.1", "docs/storage.md"},
		{"github.com/prometheus/prometheus", "v0.48.1", "v0.52.1", "docs/querying/basics.md"},
		{"github.com/prometheus/prometheus", "v0.48.1", "v0.52.1", "docs/querying/functions.md"},
		{"github.com/prometheus/prometheus", "v0.48.1", "v0.52.1", "docs/feature_flags.md"},
		{"github.com/prometheus/prometheus", "v0.48.1", "v0.52.1", "docs/command-line/prometheus.md"},
		{"github.com/moby/buildkit", "v0.12.5", "v0.14.1", "frontend/dockerfile/docs/reference.md"},
	},
}

var tuningTexts = textSet{
	prose: []string{
		"debian-faq:usr/share/doc/debian/FAQ/debian-faq.en.txt.gz",
		"maint-guide:usr/share/doc/maint-guide/maint-guide.en.txt.gz",
		"debian-reference-en:usr/share/debian-reference/debian-reference.en.txt.gz",
		"debian-history:usr/share/doc/debian-history/docs/project-history.en.txt.gz",
		"git-doc:usr/share/doc/git-doc/git-bisect-lk2009.txt",
		"git-doc:usr/share/doc/git-doc/gitfaq.txt",
		"git-doc:usr/share/doc/git-doc/git-rebase.txt",
		"git-doc:usr/share/doc/git-doc/gitcore-tutorial.txt",
	},
	releases: []release{
		{"github.com/gin-gonic/gin", "v1.9.1", "v1.10.1", "docs/doc.md"},
		{"github.com/rs/zerolog", "v1.30.0", "v1.34.0", "README.md"},
		{"github.com/prometheus/prometheus", "v0.48.1", "v0.52.1", "docs/querying/api.md"},
		{"github.com/moby/buildkit", "v0.12.5", "v0.14.1", "docs/stargz-estargz.md"},
	},
}

// text is one document, as paragraphs with their lengths in tokens.
type text struct {
	name       string
	paragraphs []string
	tokens     []int
}

type library struct {
	prose    []text
	releases [][2]text // old, new
	names    []string  // of the releases
}

// openLibrary fetches the set's texts into dir, where they are not there yet,
// and reads them.
func openLibrary(dir string, set textSet, tok *tokenizer) (*library, error) {
	lib := &library{}
	for _, name := range set.prose {
		pkg, path, _ := strings.Cut(name, ":")
		root, err := debianPackage(dir, pkg)
		if err != nil {
			return nil, err
		}
		t, err := readText(filepath.Join(root, path), tok)
		if err != nil {
			return nil, err
		}
		lib.prose = append(lib.prose, t)
	}
	for _, r := range set.releases {
		var two [2]text
		for i, version := range []string{r.old, r.new} {
			root, err := goModule(r.module + "@" + version)
			if err != nil {
				return nil, err
			}
			if two[i], err = readText(filepath.Join(root, r.path), tok); err != nil {
				return nil, err
			}
		}
		lib.releases = append(lib.releases, two)
		lib.names = append(lib.names, r.module+" "+r.path)
	}
	return lib, nil
}

// debianPackage returns the folder into which the package is unpacked.
func debianPackage(dir, pkg string) (string, error) {
	root := filepath.Join(dir, pkg)
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	debs := filepath.Join(dir, "deb", pkg)
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return "", err
	}
	get := exec.Command("apt-get", "download", "-q", pkg)
	get.Dir = debs
	if b, err := get.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w: %s", pkg, err, b)
	}
	found, _ := filepath.Glob(filepath.Join(debs, "*.deb"))
	if len(found) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages, want 1", pkg, len(found))
	}
	if b, err := exec.Command("dpkg-deb", "-x", found[0], root).CombinedOutput(); err != nil {
		return "", fmt.Errorf("dpkg-deb -x %s: %w: %s", found[0], err, b)
	}
	return root, nil
}

// goModule returns the folder of a module in the module cache.
func goModule(at string) (string, error) {
	b, err := exec.Command("go", "mod", "download", "-json", at).Output()
	if err != nil {
		return "", fmt.Errorf("go mod download %s: %w: %s", at, err, b)
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(b, &m); err != nil {
		return "", err
	}
	return m.Dir, nil
}

var (
	blankLines = regexp.MustCompile(`\n[ \t]*\n\s*`)
	rstAnchor  = regexp.MustCompile(`(?m)^\.\. _[^\n]*:\n`)
)

func readText(path string, tok *tokenizer) (text, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return text{}, err
	}
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return text{}, fmt.Errorf("%s: %w", path, err)
		}
		if b, err = io.ReadAll(z); err != nil {
			return text{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	s := rstAnchor.ReplaceAllString(strings.ToValidUTF8(string(b), ""), "")
	t := text{name: filepath.Base(path)}
	for _, p := range blankLines.Split(strings.TrimSpace(s), -1) {
		ids, err := tok.ids(p)
		if err != nil {
			return text{}, err
		}
		t.paragraphs = append(t.paragraphs, p)
		t.tokens = append(t.tokens, len(ids)+1)
	}
	return t, nil
}

// excerpt returns consecutive paragraphs from the one at the given share of the
// text on, of about the wanted number of tokens.
func (t *text) excerpt(from float64, want int) []string {
	start := int(from * float64(len(t.paragraphs)))
	var out []string
	have := 0
	for i := 0; i < len(t.paragraphs) && have < want; i++ {
		k := (start + i) % len(t.paragraphs)
		if have+t.tokens[k] > want+want/10 {
			continue
		}
		out = append(out, t.paragraphs[k])
		have += t.tokens[k]
	}
	return out
}

// tokenizer asks a llama-server for token ids.
type tokenizer struct{ url string }

func (t *tokenizer) ids(s string) ([]int32, error) {
	body, err := json.Marshal(map[string]any{"content": s})
	if err != nil {
		return nil, err
	}
	res, err := http.Post(t.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var out struct {
		Tokens []int32 `json:"tokens"`
	}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", t.url, res.Status, err)
	}
	return out.Tokens, nil
}

// inOrder is the length of the longest common subsequence as a share of the
// target.
func inOrder(ref, target []int32) float64 {
	row := make([]int32, len(ref)+1)
	for _, t := range target {
		var diagonal int32
		for j, r := range ref {
			up := row[j+1]
			if r == t {
				row[j+1] = diagonal + 1
			} else if row[j] > up {
				row[j+1] = row[j]
			}
			diagonal = up
		}
	}
	return float64(row[len(ref)]) / float64(max(1, len(target)))
}
