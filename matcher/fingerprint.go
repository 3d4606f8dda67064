package matcher

import "slices"

const (
	// shingleLen is the number of coarse codes in a shingle. Longer ones mean
	// more when they agree, and fewer of them survive when words are replaced.
	shingleLen = 4
	// maxKeys bounds a fingerprint, whatever the length of the prompt.
	maxKeys = 256
)

// Fingerprint stands for a prompt in the index: Keys are the shingle hashes that
// were sampled, ascending, each at most once. It is the bottom-k sketch of all
// shingles (Broder, 1997): which shingles are in it depends on their content
// alone, so two prompts that share passages, wherever these stand, share keys.
type Fingerprint struct{ Keys []uint64 }

// Fingerprint samples the shingles of a prompt.
func (s *Signer) Fingerprint(tokens []int32) Fingerprint {
	if len(tokens) < shingleLen {
		return Fingerprint{}
	}
	keys := make([]uint64, 0, len(tokens))
	for i := range len(tokens) - shingleLen + 1 {
		h := s.seed
		for _, t := range tokens[i : i+shingleLen] {
			h = mix(h ^ uint64(s.Coarse(t)))
		}
		keys = append(keys, h)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	return Fingerprint{Keys: slices.Clone(keys[:min(len(keys), maxKeys)])}
}
