package matcher

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// smallPairs are real texts in the repository: documents and what became of
// them, by group.
const smallPairs = "../eval/pairs/small.jsonl"

type textPair struct{ ID, Group, Reference, Target string }

func realPairs(t testing.TB) []textPair {
	t.Helper()
	f, err := os.Open(smallPairs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var pairs []textPair
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var p textPair
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, p)
	}
	return pairs
}

var wordPattern = regexp.MustCompile(`\w+|[^\w\s]`)

// words stands in for a tokenizer: one id for each word and mark.
func words(text string) []int32 {
	var tokens []int32
	for _, w := range wordPattern.FindAllString(text, -1) {
		h := uint32(2166136261)
		for i := range len(w) {
			h = (h ^ uint32(w[i])) * 16777619
		}
		tokens = append(tokens, int32(h>>1))
	}
	return tokens
}

// prose draws n tokens as frequent as words are (Zipf), so that unrelated texts
// share short runs by chance.
func prose(seed uint64, n int) []int32 {
	r := rand.New(rand.NewPCG(seed, 1))
	z := rand.NewZipf(r, 1.1, 2, 20000)
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(z.Uint64())
	}
	return tokens
}

// share estimates which part of f's shingles the prompt behind g holds, 0 to 1:
// both are thinned to the hashes that either would have sampled.
func share(f, g Fingerprint) float64 {
	if len(f.Keys) == 0 || len(g.Keys) == 0 {
		return 0
	}
	top := min(f.Keys[len(f.Keys)-1], g.Keys[len(g.Keys)-1])
	total, same, j := 0, 0, 0
	for _, k := range f.Keys {
		if k > top {
			break
		}
		total++
		for j < len(g.Keys) && g.Keys[j] < k {
			j++
		}
		if j < len(g.Keys) && g.Keys[j] == k {
			same++
		}
	}
	if total == 0 {
		return 0
	}
	return float64(same) / float64(total)
}

func TestFingerprintsOfRealTexts(t *testing.T) {
	s := IdentitySigner(1)
	least := map[string]float64{"edited": .7, "template": .7, "reordered": .9, "sought": .9, "opinion": .9, "retrieved": .6, "releases": .2, "synonyms": .2, "number": .8}
	for _, p := range realPairs(t) {
		got := share(s.Fingerprint(words(p.Target)), s.Fingerprint(words(p.Reference)))
		if want, alike := least[p.Group]; alike && got < want {
			t.Errorf("%s: share %.2f, want at least %.2f", p.ID, got, want)
		} else if !alike && got > .05 {
			t.Errorf("%s: unrelated texts share %.2f", p.ID, got)
		}
	}
}

func TestFingerprintsOfChangedPrompts(t *testing.T) {
	s := testSigner(t, 1)
	a, b, c := prose(1, 2000), prose(2, 1500), prose(3, 30000)
	f := func(name string, target, reference []int32, least, most float64) {
		t.Helper()
		if got := share(s.Fingerprint(target), s.Fingerprint(reference)); got < least || got > most {
			t.Errorf("%s: share %.2f, want %.2f to %.2f", name, got, least, most)
		}
	}
	edited := slices.Clone(a)
	for i := range 8 {
		edited = slices.Replace(edited, i*240, i*240+5*(i%3), prose(uint64(10+i), 7)...)
	}
	replaced := func(share float64) []int32 {
		r := rand.New(rand.NewPCG(9, 9))
		out := slices.Clone(a)
		for i := range out {
			if r.Float64() < share {
				out[i] = int32(5000 + r.IntN(5000))
			}
		}
		return out
	}
	f("itself", a, a, 1, 1)
	f("edited in 8 places", edited, a, .9, .99)
	f("reordered", slices.Concat(a[1000:], b, a[:1000]), slices.Concat(a, b), .98, 1)
	f("contained in a longer one", a, slices.Concat(c[:9000], a, c[9000:]), .98, 1)
	f("holding a shorter one", slices.Concat(c[:9000], a, c[9000:]), a, .03, .15)
	f("7 % replaced", replaced(.07), a, .65, .9)
	f("25 % replaced", replaced(.25), a, .2, .5)
	f("unrelated", a, b, 0, .05)
	f("shorter than a shingle", a[:3], a, 0, 0)
}

func TestSpellingsShareFingerprints(t *testing.T) {
	s := testSigner(t, 1)
	a := prose(1, 1000)
	for i := range a {
		a[i] %= 1000
	}
	b := slices.Clone(a)
	for i := 0; i < len(b); i += 4 {
		b[i] += 1000 // every fourth token in another spelling
	}
	if got := share(s.Fingerprint(b), s.Fingerprint(a)); got < .75 {
		t.Errorf("share %.2f", got)
	}
}

func TestFingerprintProperties(t *testing.T) {
	s := testSigner(t, 1)
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.SliceOfN(rapid.Int32(), 0, 3000).Draw(t, "tokens")
		checkFingerprint(t, s, tokens)
	})
}

func FuzzFingerprint(f *testing.F) {
	s := testSigner(f, 1)
	f.Add([]byte("a few bytes that stand for tokens"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		tokens := make([]int32, len(data))
		for i, b := range data {
			tokens[i] = int32(b)<<24 | int32(i%7)
		}
		checkFingerprint(t, s, tokens)
	})
}

func checkFingerprint(t interface{ Fatalf(string, ...any) }, s *Signer, tokens []int32) {
	fp := s.Fingerprint(tokens)
	if len(fp.Keys) > maxKeys || len(fp.Keys) > len(tokens) || (len(tokens) >= shingleLen) != (len(fp.Keys) > 0) {
		t.Fatalf("%d tokens give %d keys", len(tokens), len(fp.Keys))
	}
	for i := 1; i < len(fp.Keys); i++ {
		if fp.Keys[i-1] >= fp.Keys[i] {
			t.Fatalf("keys %d and %d are not ascending", i-1, i)
		}
	}
	if len(fp.Keys) > 0 && share(fp, fp) != 1 {
		t.Fatalf("a fingerprint shares %v with itself", share(fp, fp))
	}
}
