package proxy

import (
	"slices"
	"strings"
	"testing"
)

func TestCutAtBlanks(t *testing.T) {
	f := func(text string, n int, want ...string) {
		t.Helper()
		got := cutAtBlanks(text, n)
		if !slices.Equal(got, want) || strings.Join(got, "") != text {
			t.Errorf("%q in %d parts: %q, expected %q", text, n, got, want)
		}
	}
	f("", 3, "")
	f("one two three four", 0, "one two three four")
	f("one two three four", 1, "one two three four")
	f("one two three four", 2, "one two three", " four")
	f("ends here. and goes on", 2, "ends here. and", " goes on")
	// Not where a tokenizer may join what stands on both sides.
	f("one  two  three  four", 2, "one  two  three  four")
	f("one\n two\n three\n four", 2, "one\n two\n three\n four")
	f("one 2 1 3 1 4 1 5 1 6", 2, "one 2 1 3 1 4 1 5 1 6")
	f("<|a b|> <|c d|> <|e f|>", 3, "<|a b|> <|c", " d|> <|e", " f|>")
	f("eins zwei \xc3\xbcber vier", 2, "eins zwei \xc3\xbcber", " vier")
	f("onetwothreefourfivesix", 3, "onetwothreefourfivesix")
}
