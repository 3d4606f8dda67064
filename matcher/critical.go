package matcher

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Class is a kind of word whose change changes the facts of a prompt.
type Class uint8

const (
	Number     Class = 1 << iota // digits and number words
	Negation                     // not, never, without, …
	Name                         // capitalised inside a sentence
	Identifier                   // code, paths, addresses, operators
)

// AllClasses is every class.
const AllClasses = Number | Negation | Name | Identifier

// ParseClasses reads class names as configured; ok is false at an unknown one.
func ParseClasses(names []string) (c Class, ok bool) {
	for _, n := range names {
		switch n {
		case "number":
			c |= Number
		case "negation":
			c |= Negation
		case "name":
			c |= Name
		case "identifier":
			c |= Identifier
		default:
			return 0, false
		}
	}
	return c, true
}

// Pieces gives the text of a token, with its leading space if it has one.
type Pieces func(token int32) string

// maxWordTokens bounds how far a word is followed to either side of a token.
const maxWordTokens = 12

// IsCritical reports whether the word that tokens[i] is part of falls into one of
// the classes. Without the tokens' text every token counts as critical: then
// nothing is known that would make it harmless.
func IsCritical(pieces Pieces, tokens []int32, i int, classes Class) bool {
	if pieces == nil {
		return true
	}
	word, first := wordAt(pieces, tokens, i)
	return classOf(word, first)&classes != 0
}

// wordAt puts together the word around tokens[i]; first tells that it opens a
// sentence.
func wordAt(pieces Pieces, tokens []int32, i int) (word string, first bool) {
	lo := i
	for lo > 0 && i-lo < maxWordTokens && !startsWord(pieces(tokens[lo])) && !endsWord(pieces(tokens[lo-1])) {
		lo--
	}
	hi := i + 1
	for hi < len(tokens) && hi-i < maxWordTokens && !startsWord(pieces(tokens[hi])) && !endsWord(pieces(tokens[hi-1])) {
		hi++
	}
	var b strings.Builder
	for _, t := range tokens[lo:hi] {
		b.WriteString(pieces(t))
	}
	return strings.TrimSpace(b.String()), opensSentence(pieces, tokens, lo)
}

func startsWord(piece string) bool {
	r, _ := utf8.DecodeRuneInString(piece)
	return unicode.IsSpace(r) || strings.HasPrefix(piece, "<|")
}

func endsWord(piece string) bool {
	r, _ := utf8.DecodeLastRuneInString(piece)
	return unicode.IsSpace(r) || strings.HasSuffix(piece, "|>")
}

// opensSentence looks at the token before the word.
func opensSentence(pieces Pieces, tokens []int32, lo int) bool {
	if lo == 0 {
		return true
	}
	if strings.Contains(pieces(tokens[lo]), "\n") {
		return true
	}
	before := pieces(tokens[lo-1])
	if strings.ContainsAny(before, "\n") {
		return true
	}
	before = strings.TrimRight(before, " \t\"')]*_”’")
	return before == "" || strings.HasSuffix(before, ".") || strings.HasSuffix(before, "!") ||
		strings.HasSuffix(before, "?") || strings.HasSuffix(before, ":") || strings.HasSuffix(before, "|>")
}

// classOf returns every class that the word falls into.
func classOf(word string, opensSentence bool) Class {
	bare := strings.TrimFunc(word, func(r rune) bool { return unicode.IsPunct(r) && !strings.ContainsRune("_#@%", r) })
	lower := strings.ToLower(strings.ReplaceAll(bare, "’", "'"))
	var c Class
	if strings.IndexFunc(bare, unicode.IsDigit) >= 0 || numberWords[lower] {
		c |= Number
	}
	if negations[lower] || strings.HasSuffix(lower, "n't") || strings.HasSuffix(lower, "less") {
		c |= Negation
	}
	if isName(bare, opensSentence) {
		c |= Name
	}
	if isIdentifier(word, bare) {
		c |= Identifier
	}
	return c
}

// isName: a capital inside a sentence, or a word of capitals anywhere. A word
// that opens a sentence is capital by rule, not by meaning.
func isName(bare string, opensSentence bool) bool {
	r, size := utf8.DecodeRuneInString(bare)
	if !unicode.IsUpper(r) || bare == "I" {
		return false
	}
	return !opensSentence || strings.IndexFunc(bare[size:], unicode.IsUpper) >= 0
}

// isIdentifier: inner punctuation or a change of case, as in snake_case,
// a.b, x::y, a/b, me@example, camelCase; or nothing but operators and symbols.
func isIdentifier(word, bare string) bool {
	if bare == "" {
		return strings.ContainsAny(word, "=<>+*/%$&|^~!@#\\{}[]") || strings.IndexFunc(word, unicode.IsSymbol) >= 0
	}
	if strings.ContainsAny(bare, "_@/\\=<>{}[]#$|&~^*+`") || strings.Contains(bare, "::") || strings.Contains(bare, "->") {
		return true
	}
	inner := bare[:len(bare)-1]
	if i := strings.IndexAny(inner, ".:("); i > 0 {
		return true
	}
	return hasInnerCapital(bare)
}

func hasInnerCapital(s string) bool {
	lower := false
	for _, r := range s {
		if unicode.IsUpper(r) && lower {
			return true
		}
		lower = unicode.IsLower(r)
	}
	return false
}

var numberWords = wordSet(`zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
	fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred
	thousand million billion trillion dozen half third quarter first second fourth fifth sixth seventh eighth
	ninth tenth once twice thrice double triple monday tuesday wednesday thursday friday saturday sunday january
	february march april may june july august september october november december today tomorrow yesterday
	am pm all every each both any most more fewer less least`)

var negations = wordSet(`no not never none nobody nothing nowhere neither nor without cannot except unless hardly
	scarcely barely rarely seldom false true yes deny denied denies fail failed fails refuse refused against
	must may shall should forbidden allowed prohibited permitted optional required only before after until
	nicht kein keine keinen nie niemals ohne ne pas jamais sans aucun non sin nunca nada ningún não sem`)

func wordSet(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}
