package matcher

import (
	"math/bits"
	"runtime"

	"golang.org/x/sync/errgroup"
)

const (
	// clusterLeaders is how many tokens others may gather around: the first of
	// the vocabulary, which byte-pair encoders merged first because they are the
	// most frequent. It bounds the quadratic work.
	clusterLeaders = 1 << 14
	// clusterBatch is how many tokens one goroutine takes at a time.
	clusterBatch = 4096
	// clusterRadius is the largest Hamming distance, of 64 bits, at which a
	// token joins a leader: a cosine of .77. It merges spellings, case and
	// inflections. Most dictionary synonyms are no nearer to one another in a
	// static embedding table than any two words, so a wider radius was found to
	// add chance matches and no synonyms; those are left to the many shingles
	// that a rewriting spares.
	clusterRadius = 14
)

// cluster gives tokens with nearly the same code the same coarse code: each
// joins the nearest of the leaders that come before it, or stands for itself.
func cluster(codes []uint64, seed uint64) []uint16 {
	n := min(len(codes), clusterLeaders)
	leader := make([]int32, len(codes))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(codes); from += clusterBatch {
		g.Go(func() error {
			for t := from; t < min(from+clusterBatch, len(codes)); t++ {
				leader[t] = nearest(codes, min(t, n), t)
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	out := make([]uint16, len(codes))
	for t := range out {
		// A leader may itself have joined an earlier one: follow once.
		l := leader[t]
		out[t] = uint16(mix(seed ^ uint64(leader[l])))
	}
	return out
}

// nearest returns which of codes[:n] is nearest to codes[t], or t itself where
// none lies within the radius.
func nearest(codes []uint64, n, t int) int32 {
	best, at := clusterRadius+1, t
	for j, m := range codes[:n] {
		if h := bits.OnesCount64(codes[t] ^ m); h < best {
			best, at = h, j
		}
	}
	return int32(at)
}
