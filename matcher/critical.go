package matcher

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Class is a kind of word whose change changes the facts of a prompt.
type Class uint8

const (
	Number     Class = 1 << iota // digits, fractions, Roman numerals of Unicode, and number words
	Negation                     // not, never, without, …
	Name                         // capitalised inside a sentence
	Identifier                   // code, paths, addresses, operators and other symbols
	opener                       // capitalised since it opens a sentence: a name perhaps
)

// AllClasses is every class that can be chosen.
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
	return classAt(pieces, tokens, i)&classes != 0
}

// renames reports whether tokens a[i] and b[j], which differ, are of words that open
// sentences with a capital, of which nothing else tells whether they are names. It is
// false without the tokens' text, and where names do not count.
func renames(pieces Pieces, a []int32, i int, b []int32, j int, classes Class) bool {
	return pieces != nil && classes&Name != 0 && classAt(pieces, a, i)&classAt(pieces, b, j)&opener != 0
}

func classAt(pieces Pieces, tokens []int32, i int) Class {
	word, first := wordAt(pieces, tokens, i)
	return classOf(word, first)
}

// wordAt puts together the word around tokens[i]; first tells that it opens a
// sentence.
func wordAt(pieces Pieces, tokens []int32, i int) (word string, first bool) {
	lo, hi := wordStart(pieces, tokens, i), i+1
	for hi < len(tokens) && hi-i < maxWordTokens && !startsWord(pieces(tokens[hi])) && !endsWord(pieces(tokens[hi-1])) {
		hi++
	}
	var b strings.Builder
	for _, t := range tokens[lo:hi] {
		b.WriteString(pieces(t))
	}
	return strings.TrimSpace(b.String()), opensSentence(pieces, tokens, lo)
}

// wordStart is the first token of the word around tokens[i].
func wordStart(pieces Pieces, tokens []int32, i int) int {
	lo := i
	for lo > 0 && i-lo < maxWordTokens && !startsWord(pieces(tokens[lo])) && !endsWord(pieces(tokens[lo-1])) {
		lo--
	}
	return lo
}

func startsWord(piece string) bool {
	r, _ := utf8.DecodeRuneInString(piece)
	return unicode.IsSpace(r) || strings.HasPrefix(piece, "<|") || piece != "" && piece[0] >= firstUnspaced && piece[0] <= lastUnspaced
}

func endsWord(piece string) bool {
	r, size := utf8.DecodeLastRuneInString(piece)
	return unicode.IsSpace(r) || strings.HasSuffix(piece, "|>") || size == 3 && startsWord(piece[len(piece)-size:])
}

// Chinese and Japanese have no spaces between words: each token counts as one there, and
// the pieces of a character that is more than a token. UTF-8 writes U+3000 to U+9FFF in
// three bytes, of which these are the first and the last value of the first one.
const firstUnspaced, lastUnspaced = 0xE3, 0xE9

// opensSentence looks at what stands before the word, quotes and the like left out.
func opensSentence(pieces Pieces, tokens []int32, lo int) bool {
	if lo > 0 && strings.Contains(pieces(tokens[lo]), "\n") {
		return true
	}
	first := max(0, lo-maxWordTokens)
	for i := lo - 1; i >= first; i-- {
		piece := pieces(tokens[i])
		before := strings.TrimRight(piece, " \t\"')]*_”’")
		switch {
		case strings.Contains(piece, "\n") || strings.HasSuffix(before, "|>"):
			return true
		case before != "":
			return endsSentence(pieces, tokens, i, before)
		}
	}
	return first == 0
}

// endsSentence reports whether tokens[i], of which before is what counts, ends one. The
// full stop of a title, or of an initial, does not.
func endsSentence(pieces Pieces, tokens []int32, i int, before string) bool {
	word, stop := strings.CutSuffix(before, ".")
	if !stop {
		return strings.HasSuffix(before, "!") || strings.HasSuffix(before, "?")
	}
	for lo := wordStart(pieces, tokens, i); i > lo; {
		i--
		word = pieces(tokens[i]) + word
	}
	last := word[strings.LastIndexFunc(word, func(r rune) bool { return !unicode.IsLetter(r) })+1:]
	return utf8.RuneCountInString(last) != 1 && !titles[strings.ToLower(last)]
}

// classOf returns every class that the word falls into.
func classOf(word string, opensSentence bool) Class {
	bare := strings.TrimFunc(word, func(r rune) bool { return unicode.IsPunct(r) && !strings.ContainsRune("_#@%", r) })
	if strings.IndexFunc(bare, func(r rune) bool { return unicode.In(r, unicode.L, unicode.N) }) < 0 {
		bare = "" // symbols alone
	}
	lower := strings.ToLower(strings.ReplaceAll(bare, "’", "'"))
	var c Class
	if strings.IndexFunc(bare, unicode.IsNumber) >= 0 || numberWords[lower] || strings.ContainsAny(bare, hanNumerals) {
		c |= Number
	}
	if negations[lower] || strings.HasSuffix(lower, "n't") || strings.HasSuffix(lower, "less") || strings.ContainsAny(bare, hanNegations) {
		c |= Negation
	}
	c |= nameOf(bare, opensSentence)
	if isIdentifier(word, bare) {
		c |= Identifier
	}
	return c
}

// nameOf: a capital inside a sentence, or a word of capitals anywhere, is a name. A word
// that opens a sentence is capital by rule, not by meaning, but may be one.
func nameOf(bare string, opensSentence bool) Class {
	r, size := utf8.DecodeRuneInString(bare)
	switch {
	case !unicode.IsUpper(r):
		return 0
	case opensSentence && strings.IndexFunc(bare[size:], unicode.IsUpper) < 0:
		return opener
	case bare == "I":
		return 0
	}
	return Name
}

// isIdentifier: inner punctuation or a change of case, as in snake_case,
// a.b, x::y, a/b, me@example, camelCase; or nothing but operators and symbols.
func isIdentifier(word, bare string) bool {
	if bare == "" {
		return strings.ContainsAny(word, "_=<>+*/%$&|^~!@#\\{}[]") || strings.IndexFunc(word, unicode.IsSymbol) >= 0
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
	nicht kein keine keinen keinem keiner keines nichts nie niemals niemand nirgends weder noch ohne
	ne pas jamais sans aucun non sin nunca nada ningún não sem`)

// In Chinese, and as far as Japanese uses the same characters.
const (
	hanNumerals  = "〇零一二三四五六七八九十百千万亿兩两萬億半"
	hanNegations = "不没沒无無非未否勿"
)

// titles are abbreviations before a name.
var titles = wordSet(`dr mr mrs ms prof st rev hon gov sen rep gen col capt lt sgt mme mlle hr fr`)

func wordSet(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}
