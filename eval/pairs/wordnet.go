package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// wordNet gives a synonym for a word: another single word of the first sense
// that has one.
type wordNet struct{ synonym map[string]string }

// Parts of speech in the order in which a word is looked up: a word that can be
// an adjective is rarely better replaced as a noun.
var partsOfSpeech = []string{"adj", "adv", "verb", "noun"}

func openWordNet(dir string) (*wordNet, error) {
	w := &wordNet{synonym: map[string]string{}}
	for _, pos := range partsOfSpeech {
		if err := w.read(dir, pos); err != nil {
			return nil, fmt.Errorf("wordnet-base: %w", err)
		}
	}
	return w, nil
}

// read takes one part of speech: index.POS names each word's synsets, as byte
// offsets of lines in data.POS (formats: wndb(5WN)).
func (w *wordNet) read(dir, pos string) error {
	data, err := os.ReadFile(filepath.Join(dir, "data."+pos))
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, "index."+pos))
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if strings.HasPrefix(lines.Text(), " ") || len(fields) < 6 || !plainWord.MatchString(fields[0]) {
			continue
		}
		if w.synonym[fields[0]] != "" {
			continue
		}
		senses, _ := strconv.Atoi(fields[2])
		for _, offset := range fields[len(fields)-senses:][:min(senses, 2)] {
			at, err := strconv.Atoi(offset)
			if err != nil || at >= len(data) {
				return fmt.Errorf("index.%s: %s: bad offset %q", pos, fields[0], offset)
			}
			line, _, _ := strings.Cut(string(data[at:min(len(data), at+4000)]), "\n")
			if s := otherWord(line, fields[0]); s != "" {
				w.synonym[fields[0]] = s
				break
			}
		}
	}
	return nil
}

// otherWord picks from a line of data.POS, "offset file type count(hex) word id
// word id …", a word that is not the given one.
func otherWord(line, not string) string {
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return ""
	}
	n, _ := strconv.ParseInt(fields[3], 16, 32)
	for i := 0; i < int(n) && 4+2*i < len(fields); i++ {
		word, _, _ := strings.Cut(fields[4+2*i], "(")
		if word != not && plainWord.MatchString(word) {
			return word
		}
	}
	return ""
}

var (
	plainWord = regexp.MustCompile(`^[a-z]{3,}$`)
	// pieces are a text's words, and what has no synonym whatever words are in it: quoted
	// code, and paths, addresses, options and names with punctuation or digits in them.
	pieces = regexp.MustCompile("`+[^`]+`+_*|\\S*[/_=@<>{}\\[\\]$#\\\\|~^*0-9:.+-][A-Za-z/_=@<>{}$#-]\\S*|\\b[a-z]{4,}\\b")
	// Function words that WordNet knows in some far-fetched sense.
	keepWords = set(`about above after also been before being below both could does done down each
		else even ever every from have having here into just less like made make many might more
		most much must need only other over same shall should some such than that their them then
		there these they this those through under until upon very well were what when where
		which while will with within would your`)
)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// endings are the inflections that are carried over to the synonym.
var endings = []string{"", "s", "ed", "ing"}

// replacement returns the word's synonym in the word's own inflection, or "".
func (w *wordNet) replacement(word string) string {
	if keepWords[word] {
		return ""
	}
	for _, e := range endings {
		base := strings.TrimSuffix(word, e)
		if e != "" && (base == word || len(base) < 3) {
			continue
		}
		for _, stem := range []string{base, base + "e"} {
			if stem != base && e != "ed" && e != "ing" {
				continue
			}
			if s := w.synonym[stem]; s != "" {
				return inflect(s, e)
			}
		}
	}
	return ""
}

func inflect(word, ending string) string {
	switch {
	case (ending == "ed" || ending == "ing") && strings.HasSuffix(word, "e"):
		return strings.TrimSuffix(word, "e") + ending
	case ending == "s" && strings.HasSuffix(word, "y"):
		return strings.TrimSuffix(word, "y") + "ies"
	case ending == "s" && (strings.HasSuffix(word, "s") || strings.HasSuffix(word, "h")):
		return word + "es"
	}
	return word + ending
}

// rewrite replaces each word that has a synonym with the given probability.
func (w *wordNet) rewrite(s string, rate float64, random *rand.Rand) string {
	return pieces.ReplaceAllStringFunc(s, func(piece string) string {
		if !plainWord.MatchString(piece) {
			return piece
		}
		r := w.replacement(piece)
		// The draw comes first, so that a higher rate replaces a superset.
		if draw := random.Float64(); r == "" || draw >= rate {
			return piece
		}
		return r
	})
}
