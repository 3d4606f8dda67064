package matcher

import (
	"context"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sync/errgroup"
)

const (
	codeBits   = 64  // of a token's position-free code
	ecacheBits = 128 // of an E-cache signature
	// projectRows is how many embeddings are projected in one call: enough to
	// hide the price of the call, few enough to stay in the cache.
	projectRows = 512
	// meanRows is how many embeddings, evenly spaced over the vocabulary, the
	// mean is taken from.
	meanRows = 4096
	// ecacheBase is the RoPE base applied to embeddings. It is the matcher's own
	// choice (RoFormer's 10,000) and need not be the model's.
	ecacheBase = 10000
)

// Embeddings is a model's table of token embeddings: Vocab rows of Dim numbers.
// Row writes one row, dequantised, into dst (Dim long) and may be called from
// several goroutines at once.
type Embeddings struct {
	Vocab, Dim int
	Row        func(token int32, dst []float32) error
}

// Project writes the sign bits of planes times rows, after applying RoPE to
// every row at its position where pos is not nil: rows is n x dim, planes is
// bits x dim, freqs holds dim/2 radians per position for the pairs (2i, 2i+1),
// and out receives n x bits/64 words, in which the bit of a product above 0 is set.
type Project func(rows []float32, dim int, pos []int32, freqs, planes []float32, bits int, out []uint64) error

// Signature is the E-cache signature of a token at a position: the sign bits of
// random projections of its embedding with RoPE applied (SemShareKV, arXiv
// 2509.24832, section 3).
type Signature [ecacheBits / 64]uint64

// Cosine estimates the cosine between the embeddings behind two signatures from
// their Hamming distance h: cos(pi h / bits) (Charikar, 2002).
func Cosine(a, b Signature) float64 { return cosines[a.distance(b)] }

func (a Signature) distance(b Signature) int {
	return bits.OnesCount64(a[0]^b[0]) + bits.OnesCount64(a[1]^b[1])
}

var cosines = func() (c [ecacheBits + 1]float64) {
	for h := range c {
		c[h] = math.Cos(math.Pi * float64(h) / ecacheBits)
	}
	return c
}()

// Signer turns token ids into signatures. It is made once for a model and may
// be used from several goroutines.
type Signer struct {
	key     string
	seed    uint64
	emb     Embeddings
	project Project
	mean    []float32
	freqs   []float32
	planes  []float32 // ecacheBits x Dim
	coarse  []uint16
}

// NewSigner computes the codes of the whole vocabulary. The same embeddings and seed
// always give the same codes.
func NewSigner(e Embeddings, seed uint64, project Project) (*Signer, error) {
	if e.Vocab <= 0 || e.Dim <= 0 || e.Dim%2 != 0 || e.Row == nil {
		return nil, fmt.Errorf("embeddings: %d rows of %d: want at least one row of an even number", e.Vocab, e.Dim)
	}
	s := &Signer{seed: seed, emb: e, project: project}
	s.key = fmt.Sprintf("embedding-%d-%d-%x", codeBits, e.Vocab, seed)
	s.freqs = ecacheFreqs(e.Dim)
	s.planes = randomPlanes(seed, ecacheBits, e.Dim)
	var err error
	if s.mean, err = meanRow(e); err != nil {
		return nil, err
	}
	codes, err := s.vocabulary()
	if err != nil {
		return nil, err
	}
	s.coarse = cluster(codes, seed)
	return s, nil
}

// IdentitySigner is for models whose embeddings cannot be read: a token is like
// itself and nothing else.
func IdentitySigner(seed uint64) *Signer {
	return &Signer{seed: seed, key: fmt.Sprintf("identity-%x", seed)}
}

// Key names everything that decides the codes: fingerprints of signers with
// different keys do not compare.
func (s *Signer) Key() string { return s.key }

// Identity reports whether tokens only ever match themselves.
func (s *Signer) Identity() bool { return s.coarse == nil }

// Coarse is the code that shingles are made of: tokens with nearly the same
// embedding (case, spacing, inflections, the closest synonyms) share one. Tokens outside of
// the vocabulary are told apart by their ids.
func (s *Signer) Coarse(token int32) uint16 {
	if i := int(token); i >= 0 && i < len(s.coarse) {
		return s.coarse[i]
	}
	return uint16(mix(s.seed ^ uint64(uint32(token))))
}

// ECache returns the signatures of the tokens at the positions (same length).
// It fails where a token is outside of the vocabulary or its row unreadable, and where ctx
// ended first.
func (s *Signer) ECache(ctx context.Context, tokens, pos []int32) ([]Signature, error) {
	if len(tokens) != len(pos) {
		return nil, fmt.Errorf("e-cache: %d tokens with %d positions", len(tokens), len(pos))
	}
	out := make([]Signature, len(tokens))
	rows := make([]float32, min(len(tokens), projectRows)*s.emb.Dim)
	words := make([]uint64, min(len(tokens), projectRows)*len(Signature{}))
	for from := 0; from < len(tokens); from += projectRows {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		n := min(projectRows, len(tokens)-from)
		if err := s.rows(tokens[from:from+n], rows); err != nil {
			return nil, err
		}
		words := words[:n*len(Signature{})]
		if err := s.project(rows[:n*s.emb.Dim], s.emb.Dim, pos[from:from+n], s.freqs, s.planes, ecacheBits, words); err != nil {
			return nil, fmt.Errorf("e-cache: %w", err)
		}
		for i := range n {
			out[from+i] = Signature{words[2*i], words[2*i+1]}
		}
	}
	return out, nil
}

// rows writes the centred embeddings of the tokens.
func (s *Signer) rows(tokens []int32, dst []float32) error {
	d := s.emb.Dim
	for i, t := range tokens {
		if t < 0 || int(t) >= s.emb.Vocab {
			return fmt.Errorf("token %d: the embedding table has %d rows", t, s.emb.Vocab)
		}
		row := dst[i*d : (i+1)*d]
		if err := s.emb.Row(t, row); err != nil {
			return fmt.Errorf("embedding of token %d: %w", t, err)
		}
		for j, m := range s.mean {
			row[j] -= m
		}
	}
	return nil
}

// vocabulary projects every embedding, on all CPUs: each takes every so many-th batch,
// in a buffer of its own.
func (s *Signer) vocabulary() ([]uint64, error) {
	codes := make([]uint64, s.emb.Vocab)
	workers := runtime.GOMAXPROCS(0)
	g, ctx := errgroup.WithContext(context.Background())
	for w := range workers {
		g.Go(func() error {
			tokens := make([]int32, projectRows)
			rows := make([]float32, projectRows*s.emb.Dim)
			for from := w * projectRows; from < len(codes) && ctx.Err() == nil; from += workers * projectRows {
				n := min(projectRows, len(codes)-from)
				for i := range n {
					tokens[i] = int32(from + i)
				}
				if err := s.rows(tokens[:n], rows); err != nil {
					return err
				}
				if err := s.project(rows[:n*s.emb.Dim], s.emb.Dim, nil, nil, s.planes[:codeBits*s.emb.Dim], codeBits, codes[from:from+n]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("signatures of the vocabulary: %w", err)
	}
	return codes, nil
}

// meanRow is what all embeddings have in common. It is taken away before
// projecting: with it every token looks a little like every other.
func meanRow(e Embeddings) ([]float32, error) {
	sum := make([]float64, e.Dim)
	row := make([]float32, e.Dim)
	n := min(e.Vocab, meanRows)
	for i := range n {
		t := int32(i * e.Vocab / n)
		if err := e.Row(t, row); err != nil {
			return nil, fmt.Errorf("embedding of token %d: %w", t, err)
		}
		for j, v := range row {
			sum[j] += float64(v)
		}
	}
	mean := make([]float32, e.Dim)
	for j := range mean {
		mean[j] = float32(sum[j] / float64(n))
	}
	return mean, nil
}

// ecacheFreqs are RoPE's frequencies, base^(-2i/dim) (RoFormer, arXiv 2104.09864).
func ecacheFreqs(dim int) []float32 {
	f := make([]float32, dim/2)
	for i := range f {
		f[i] = float32(math.Pow(ecacheBase, -2*float64(i)/float64(dim)))
	}
	return f
}

// randomPlanes draws n normal vectors of length dim.
func randomPlanes(seed uint64, n, dim int) []float32 {
	r := rand.New(rand.NewPCG(seed, uint64(dim)))
	p := make([]float32, n*dim)
	for i := range p {
		p[i] = float32(r.NormFloat64())
	}
	return p
}

// mix is splitmix64's finaliser: neighbouring ids get unrelated hashes.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
