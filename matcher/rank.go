package matcher

import (
	"cmp"
	"math"
	"slices"

	"github.com/redis/go-redis/v9"
)

// rank adds up the votes. A key's vote weighs log(1 + N/df): what every
// reference holds says little about any. A full list does not tell how many hold its key:
// it may be all.
func rank(lists []*redis.StringSliceCmd, references, limit int) []Candidate {
	n := references
	for _, l := range lists {
		n = max(n, len(l.Val()))
	}
	votes := map[string]float64{}
	total := 0.0
	for _, l := range lists {
		ids := l.Val()
		df := max(1, len(ids))
		if df >= maxMembers {
			df = n
		}
		w := math.Log1p(float64(n) / float64(df))
		total += w
		for _, id := range ids {
			votes[id] += w
		}
	}
	out := make([]Candidate, 0, len(votes))
	for id, v := range votes {
		out = append(out, Candidate{id, v / total})
	}
	slices.SortFunc(out, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(b.Votes, a.Votes), cmp.Compare(a.ID, b.ID))
	})
	return out[:min(len(out), max(0, limit))]
}
