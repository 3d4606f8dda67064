package matcher

import "slices"

const (
	// shingleLen is the number of coarse codes in a shingle. Longer ones mean
	// more when they agree, and fewer of them survive when words are replaced.
	// With 4, two unrelated English texts of 2,000 to 4,000 tokens share 1 % of
	// their shingles, and texts with up to 25 % of the words replaced a third.
	shingleLen = 4
	// A fingerprint has a key for every keyEvery tokens, and at least minKeys,
	// so that chance does not decide over short prompts, and at most maxKeys.
	keyEvery = 16
	minKeys  = 192
	maxKeys  = 1024
)

// Fingerprint stands for a prompt in the index. Keys are the smallest hashes of
// its shingles, ascending, each once: the bottom-k sketch, which is MinHash with
// one function (Broder, 1997), every key a band of one row. What is in it
// depends on what the shingles say and not on where they stand, so prompts that
// share passages share keys, however these were moved, joined or cut, and the
// sketch of a prompt and that of a longer one that contains it agree as far as
// the sparser of the two reaches. No cut into chunks is needed, whose edges an
// edit could move.
type Fingerprint struct{ Keys []uint64 }

// Fingerprint samples the shingles of a prompt; one shorter than a shingle has
// none.
func (s *Signer) Fingerprint(tokens []int32) Fingerprint {
	n := len(tokens) - shingleLen + 1
	if n <= 0 {
		return Fingerprint{}
	}
	keys := make([]uint64, n)
	for i := range keys {
		h := s.seed
		for _, t := range tokens[i : i+shingleLen] {
			h = mix(h ^ uint64(s.Coarse(t)))
		}
		keys[i] = h
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	k := min(max(len(tokens)/keyEvery, minKeys), maxKeys, len(keys))
	return Fingerprint{Keys: slices.Clone(keys[:k])}
}
