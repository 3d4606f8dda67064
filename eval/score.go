package eval

import (
	"math"
	"strings"
	"unicode"
)

// distribution is a next-token distribution as the backend states it: its most
// likely tokens, most likely first, with natural logarithms of the full
// softmax.
type distribution struct {
	tokens   []int32
	logprobs []float64
}

func (d *distribution) top() int32 {
	if len(d.tokens) == 0 {
		return -1
	}
	return d.tokens[0]
}

// logprob returns the token's logarithm, or, for one that is not listed, the
// lowest that is: an upper bound.
func (d *distribution) logprob(token int32) float64 {
	for i, t := range d.tokens {
		if t == token {
			return d.logprobs[i]
		}
	}
	if len(d.logprobs) == 0 {
		return 0
	}
	return d.logprobs[len(d.logprobs)-1]
}

// leastRest keeps the rest bucket off zero: it is one minus a sum of rounded
// float32 values.
const leastRest = 1e-7

// kl is the Kullback-Leibler divergence of the cold distribution p against the
// shared one q in nats, over the tokens that both list and one bucket for all
// the rest. Merging tokens into a bucket can only lower a divergence, so this
// is a lower bound, and close to the true value where the lists hold nearly all
// of the mass.
func kl(p, q distribution) float64 {
	other := make(map[int32]float64, len(q.tokens))
	for i, t := range q.tokens {
		other[t] = q.logprobs[i]
	}
	sum, restP, restQ := 0.0, 1.0, 1.0
	for i, t := range p.tokens {
		lq, both := other[t]
		if !both {
			continue
		}
		lp := p.logprobs[i]
		sum += math.Exp(lp) * (lp - lq)
		restP -= math.Exp(lp)
		restQ -= math.Exp(lq)
	}
	restP, restQ = max(restP, leastRest), max(restQ, leastRest)
	return max(0, sum+restP*math.Log(restP/restQ))
}

// quality compares the shared run with the cold one.
type quality struct {
	perPosition []float64 // KL in nats
	mean, worst float64   // of perPosition
	top1        float64   // share of positions at which the likeliest token agrees
	nllDelta    float64   // mean NLL of the cold answer, shared minus cold, in nats
	coldMeanNLL float64
}

// compare scores the distributions of both runs at the positions of the cold
// answer, whose tokens are given.
func compare(answer []int32, cold, shared []distribution) quality {
	n := min(len(answer), len(cold), len(shared))
	var q quality
	if n == 0 {
		return q
	}
	sharedNLL, agree := 0.0, 0
	for i := range n {
		d := kl(cold[i], shared[i])
		q.perPosition = append(q.perPosition, d)
		q.mean += d / float64(n)
		q.worst = max(q.worst, d)
		if cold[i].top() == shared[i].top() {
			agree++
		}
		q.coldMeanNLL -= cold[i].logprob(answer[i]) / float64(n)
		sharedNLL -= shared[i].logprob(answer[i]) / float64(n)
	}
	q.top1 = float64(agree) / float64(n)
	q.nllDelta = sharedNLL - q.coldMeanNLL
	return q
}

// rougeL is the F1 of the longest common subsequence of words (Lin, 2004, with
// beta 1), 0 to 1. Two texts without words agree.
func rougeL(candidate, reference string) float64 {
	c, r := words(candidate), words(reference)
	if len(c) == 0 && len(r) == 0 {
		return 1
	}
	l := float64(common(c, r))
	if l == 0 {
		return 0
	}
	precision, recall := l/float64(len(c)), l/float64(len(r))
	return 2 * precision * recall / (precision + recall)
}

func words(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// common is the length of the longest common subsequence.
func common(a, b []string) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		diagonal := 0
		for j, y := range b {
			up := row[j+1]
			if x == y {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(row[j], up)
			}
			diagonal = up
		}
	}
	return row[len(b)]
}

// says reports whether the answer contains the expected words one after the
// other.
func says(answer, expected string) bool {
	return strings.Contains(" "+strings.Join(words(answer), " ")+" ", " "+strings.Join(words(expected), " ")+" ")
}
