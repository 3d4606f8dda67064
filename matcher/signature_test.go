package matcher

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// testEmbeddings is a table of random rows in which the tokens from half on are
// close to those of the first half: token t+vocab/2 is a spelling of token t.
func testEmbeddings(vocab, dim int) (Embeddings, []float32) {
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]float32, vocab*dim)
	for i := range rows {
		if i < len(rows)/2 {
			rows[i] = float32(r.NormFloat64()) + 0.5 // rows have a common part
		} else {
			rows[i] = rows[i-len(rows)/2] + 0.15*float32(r.NormFloat64())
		}
	}
	return Embeddings{vocab, dim, func(t int32, dst []float32) error {
		copy(dst, rows[int(t)*dim:][:dim])
		return nil
	}}, rows
}

func testSigner(t testing.TB, seed uint64) *Signer {
	t.Helper()
	e, _ := testEmbeddings(2000, 64)
	s, err := NewSigner(e, seed, projectPlainly)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSignerIsDecidedBySeed(t *testing.T) {
	a, b, c := testSigner(t, 7), testSigner(t, 7), testSigner(t, 8)
	if a.Key() != b.Key() || !slices.Equal(a.coarse, b.coarse) {
		t.Fatal("two signers of one seed differ")
	}
	if a.Key() == c.Key() || slices.Equal(a.coarse, c.coarse) {
		t.Fatal("signers of two seeds agree")
	}
}

func TestSpellingsShareACoarseCodeAndOthersDoNot(t *testing.T) {
	s := testSigner(t, 1)
	same, chance := 0, 0
	for i := range int32(1000) {
		if s.Coarse(i) == s.Coarse(i+1000) {
			same++
		}
		if s.Coarse(i) == s.Coarse((i+1)%1000) {
			chance++
		}
	}
	if same < 950 || chance > 5 {
		t.Fatalf("%d of 1000 spellings share a code, want nearly all; %d of 1000 other tokens do, want hardly any", same, chance)
	}
}

func TestCosineEstimatesTheAngle(t *testing.T) {
	const dim = 256
	base, other := randomPlanes(3, 1, dim), randomPlanes(4, 1, dim)
	f := func(want float64) {
		t.Helper()
		rows := slices.Concat(base, make([]float32, dim))
		for i := range dim {
			rows[dim+i] = float32(want)*base[i] + float32(math.Sqrt(1-want*want))*other[i]
		}
		out := make([]uint64, 4)
		if err := projectPlainly(rows, dim, nil, nil, randomPlanes(5, ecacheBits, dim), ecacheBits, out); err != nil {
			t.Fatal(err)
		}
		got := Cosine(Signature(out[:2]), Signature(out[2:]))
		if math.Abs(got-want) > 0.3 {
			t.Errorf("cosine %.2f estimated as %.2f", want, got)
		}
	}
	f(1)
	f(0.9)
	f(0.5)
	f(0)
	f(-0.5)
	f(-1)
}

func TestECacheKnowsTokenAndDistance(t *testing.T) {
	s := testSigner(t, 1)
	sig, err := s.ECache(t.Context(), []int32{5, 5, 5, 5, 1005, 6, 5, 5}, []int32{0, 0, 3, 2000, 0, 0, 1000, 1003})
	if err != nil {
		t.Fatal(err)
	}
	if sig[0] != sig[1] {
		t.Error("one token at one position has two signatures")
	}
	near, far := Cosine(sig[0], sig[2]), Cosine(sig[0], sig[3])
	if near <= far || near >= 1 {
		t.Errorf("cosine of a token with itself 3 positions on is %.2f, 2000 on %.2f: want it to fall", near, far)
	}
	if moved := Cosine(sig[6], sig[7]); math.Abs(moved-near) > 0.2 {
		t.Errorf("3 positions apart: %.2f at the start, %.2f further on: only the distance should count", near, moved)
	}
	if c := Cosine(sig[0], sig[4]); c < 0.8 {
		t.Errorf("cosine of two spellings is %.2f", c)
	}
	if c := Cosine(sig[0], sig[5]); c > 0.5 {
		t.Errorf("cosine of two unlike tokens is %.2f", c)
	}
}

func TestIdentitySignerMatchesTokensWithThemselvesOnly(t *testing.T) {
	s := IdentitySigner(1)
	if !s.Identity() || testSigner(t, 1).Identity() {
		t.Fatal("Identity() is wrong")
	}
	if s.Coarse(1) == s.Coarse(2) || s.Coarse(-1) == s.Coarse(1) || s.Key() == IdentitySigner(2).Key() {
		t.Fatal("identity codes do not tell tokens or seeds apart")
	}
}

func TestSignerErrors(t *testing.T) {
	good, _ := testEmbeddings(20, 4)
	project := projectPlainly
	f := func(e Embeddings, want string) {
		t.Helper()
		if _, err := NewSigner(e, 1, project); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f(Embeddings{}, "0 rows of 0")
	f(Embeddings{20, 3, good.Row}, "20 rows of 3")
	f(Embeddings{20, 4, nil}, "20 rows of 4")
	f(Embeddings{20, 4, func(t int32, dst []float32) error {
		if t == 7 {
			return errors.New("bad block")
		}
		return good.Row(t, dst)
	}}, "token 7: bad block")
	project = func([]float32, int, []int32, []float32, []float32, int, []uint64) error {
		return errors.New("no kernel")
	}
	f(good, "vocabulary: no kernel")

	s, err := NewSigner(good, 1, projectPlainly)
	if err != nil {
		t.Fatal(err)
	}
	for _, tokens := range [][]int32{{20}, {-1}, {1, 2}} {
		if _, err := s.ECache(t.Context(), tokens, []int32{0}); err == nil {
			t.Errorf("ECache(%v) at one position: no error", tokens)
		}
	}
}
