package matcher

import "testing"

func TestIsCriticalKnowsNumbersNegationsNamesAndIdentifiers(t *testing.T) {
	f := func(before, word string, want Class) {
		t.Helper()
		var x text
		tokens := x.tokens(before + " " + word + " and")
		for _, c := range []Class{Number, Negation, Name, Identifier} {
			if got := IsCritical(x.piece, tokens, len(tokens)-2, c); got != (want&c != 0) {
				t.Errorf("%q after %q: class %d is %v", word, before, c, got)
			}
		}
	}
	f("it took", "1492", Number)
	f("it took", "seven", Number)
	f("he did", "not", Negation)
	f("he", "couldn't", Negation)
	f("we met", "Alice", Name)
	f("in the end.", "Alice", 0) // capital by rule
	f("he said: \"no.\" \"", "Alice", 0)
	f("Customer:", "Smith", Name)
	f("\"name\":", "\"Alice\",", Name)
	f("said \"", "Alice", Name)
	f("we met Dr.", "Smith", Name)
	f("we met (Prof.", "Smith", Name)
	f("we met J.", "Smith", Name)
	f("friends, e.g.", "Smith", Name)
	f("see 12.", "Smith", 0)
	f("to wait...", "Smith", 0)
	f("mit", "keinem", Negation)
	f("we met", "NASA", Name)
	f("call", "get_name", Identifier)
	f("call", "getName", Identifier)
	f("see", "/etc/passwd", Identifier)
	f("a", ">=", Identifier)
	for _, word := range []string{"%", "_", "≥", "→", "€", "✅", "✔\ufe0f", "±"} {
		f("a", word, Identifier)
	}
	for _, word := range []string{"½", "Ⅳ", "x²"} {
		f("a", word, Number)
	}
	f("the", "–", 0)
	f("the", "house,", 0)
	f("the", "quickly", 0)
}

// In text without spaces each token is looked at by itself, also where a character is more
// than one.
func TestIsCriticalReadsTextWithoutSpaces(t *testing.T) {
	f := func(want string, pieces ...string) {
		t.Helper()
		got := ""
		for i := range pieces {
			switch {
			case IsCritical(pieceOf(pieces), positions(len(pieces)), i, Number):
				got += "n"
			case IsCritical(pieceOf(pieces), positions(len(pieces)), i, Negation):
				got += "-"
			default:
				got += "."
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s", pieces, got, want)
		}
	}
	f("..n..n", "合同", "共", "三十", "页", "，", "五百")
	f("..-.", "他", "今天", "不是", "客人")
	f(".nn.", "共", "\xe4\xb8", "\x89", "页") // 三 in two tokens
	f(".n.", "共", "3", "页")
}

func pieceOf(pieces []string) Pieces { return func(t int32) string { return pieces[t] } }

func TestParseClassesRefusesUnknownNames(t *testing.T) {
	if c, ok := ParseClasses([]string{"number", "name"}); !ok || c != Number|Name {
		t.Errorf("number and name gave %d, %v", c, ok)
	}
	if _, ok := ParseClasses([]string{"verb"}); ok {
		t.Errorf("verb was accepted")
	}
}

func positions(n int) []int32 {
	p := make([]int32, n)
	for i := range p {
		p[i] = int32(i)
	}
	return p
}
