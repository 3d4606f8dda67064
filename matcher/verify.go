package matcher

import "context"

// Verify keeps, of the candidates that the index named, those that really share
// runs of tokens with the target, at most limit. They are picked one by one,
// each time the one that covers most of what the others leave uncovered, so that
// a target made of several earlier prompts gets all of them. One that would add
// fewer than least tokens is not worth its seams. Where ctx ends it keeps none.
func Verify(ctx context.Context, target []int32, candidates []Reference, limit, least int) []Reference {
	covers := make([][]bool, len(candidates))
	for i, c := range candidates {
		if ctx.Err() != nil {
			return nil
		}
		covers[i] = coverage(target, c.Tokens)
	}
	covered := make([]bool, len(target))
	var out []Reference
	for len(out) < limit {
		if ctx.Err() != nil {
			return nil
		}
		best, most := -1, max(least, 1)-1
		for i, c := range covers {
			if n := gain(c, covered); n > most {
				best, most = i, n
			}
		}
		if best < 0 {
			break
		}
		out = append(out, candidates[best])
		for t, in := range covers[best] {
			covered[t] = covered[t] || in
		}
		covers[best] = nil
	}
	return out
}

// coverage marks the target tokens that lie in a run of seedLen tokens which the
// reference has as well.
func coverage(target, ref []int32) []bool {
	grams := make(map[uint64]struct{}, len(ref))
	for p := 0; p+seedLen <= len(ref); p++ {
		grams[gramHash(ref[p:])] = struct{}{}
	}
	out := make([]bool, len(target))
	for t := 0; t+seedLen <= len(target); t++ {
		if _, ok := grams[gramHash(target[t:])]; ok {
			for i := range seedLen {
				out[t+i] = true
			}
		}
	}
	return out
}

func gain(c, covered []bool) int {
	n := 0
	for t, in := range c {
		if in && !covered[t] {
			n++
		}
	}
	return n
}
