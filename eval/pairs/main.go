// Command pairs makes the files of prompt pairs that semsharekv eval measures
// with: report.jsonl for what is published, small.jsonl, two of each group, for
// a quick look, and tuning.jsonl, from other texts, for choosing settings.
//
//	go run ./eval/pairs -server http://127.0.0.1:8081 -out eval/pairs
//
// It fetches the texts (README.md names them and their licences) with apt-get
// and the Go command, and needs a llama-server only to count tokens. The same
// texts give the same files: every random choice is seeded by the pair's id.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

// Pair is one line of a pairs file.
type Pair struct {
	ID        string `json:"id"`
	Group     string `json:"group"`
	Reference string `json:"reference"`
	Target    string `json:"target"`
	Answer    string `json:"answer,omitempty"`
}

func main() {
	server := flag.String("server", "http://127.0.0.1:8081", "llama-server whose /tokenize counts tokens")
	work := flag.String("work", filepath.Join(os.TempDir(), "semsharekv-texts"), "folder for the fetched texts")
	out := flag.String("out", "eval/pairs", "folder for the files of pairs")
	wordnet := flag.String("wordnet", "/usr/share/wordnet", "folder of Debian's wordnet-base")
	flag.Parse()
	if err := run(*server, *work, *out, *wordnet); err != nil {
		fmt.Fprintln(os.Stderr, "pairs:", err)
		os.Exit(1)
	}
}

func run(server, work, out, wordnet string) error {
	tok := &tokenizer{url: server + "/tokenize"}
	words, err := openWordNet(wordnet)
	if err != nil {
		return err
	}
	sets := []struct {
		name string
		set  textSet
	}{{"report", reportTexts}, {"tuning", tuningTexts}}
	for _, s := range sets {
		lib, err := openLibrary(work, s.set, tok)
		if err != nil {
			return err
		}
		m := maker{lib: lib, tok: tok, words: words, set: s.name}
		pairs, err := m.all()
		if err != nil {
			return err
		}
		if err := describe(tok, pairs); err != nil {
			return err
		}
		if err := write(filepath.Join(out, s.name+".jsonl"), pairs); err != nil {
			return err
		}
		if s.name == "report" {
			if err := write(filepath.Join(out, "small.jsonl"), firstOfEach(pairs, 2)); err != nil {
				return err
			}
		}
	}
	return nil
}

func firstOfEach(pairs []Pair, n int) (out []Pair) {
	seen := map[string]int{}
	for _, p := range pairs {
		if seen[p.Group]++; seen[p.Group] <= n {
			out = append(out, p)
		}
	}
	return out
}

func write(path string, pairs []Pair) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, p := range pairs {
		if err := enc.Encode(p); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// describe prints each pair's length and its share of target tokens with an
// identical counterpart in the same order, and refuses lengths out of bounds.
func describe(tok *tokenizer, pairs []Pair) error {
	for _, p := range pairs {
		ref, err := tok.ids(p.Reference)
		if err != nil {
			return err
		}
		target, err := tok.ids(p.Target)
		if err != nil {
			return err
		}
		fmt.Printf("%-22s %5d %5d tokens  in order %.3f\n", p.ID, len(ref), len(target), inOrder(ref, target))
		for _, n := range []int{len(ref), len(target)} {
			if n < minTokens || n > maxTokens {
				return fmt.Errorf("pair %s: a text of %d tokens, want %d to %d", p.ID, n, minTokens, maxTokens)
			}
		}
	}
	return nil
}
