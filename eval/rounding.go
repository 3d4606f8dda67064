package eval

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Two servers that compute the same prompt in another order of additions, one of them
// without flash attention, say, do not answer quite the same. What they are apart is what
// no way of sharing can be expected to stay below.

// Rounding is rounding.json: how far two servers of one model are apart, nothing shared.
type Rounding struct {
	Created time.Time `json:"created"`
	Machine Machine   `json:"machine"`
	Backend Model     `json:"backend"`
	Other   Model     `json:"other"`
	// Of all pairs, as in Group; KL in nats.
	KLMean     float64        `json:"kl_mean"`
	KLMax      float64        `json:"kl_max"` // the worst pair's mean
	Top1       float64        `json:"top1"`
	SameAnswer int            `json:"same_answer"`
	Pairs      []RoundingPair `json:"pairs"`
}

// RoundingPair is one pair's target, answered cold by both.
type RoundingPair struct {
	ID         string  `json:"id"`
	Group      string  `json:"group"`
	Tokens     int     `json:"tokens"`
	KLMean     float64 `json:"kl_mean"` // nats
	Top1       float64 `json:"top1"`
	SameAnswer bool    `json:"same_answer"`
}

// runRounding answers the pairs' targets by both servers and writes rounding.json. The
// pairs measured until an error are in it; without any it is not written.
func runRounding(ctx context.Context, pairs []Pair, o Options) error {
	out, err := openOutput(o.Out, "rounding.json")
	if err != nil {
		return err
	}
	defer out.close()
	cfg := o.Config
	servers := [2]*backend{newBackend(cfg.Backend.URL, cfg.Backend.APIKey), newBackend(o.Other, cfg.Backend.APIKey)}
	models, err := compared(ctx, servers)
	if err != nil {
		return err
	}
	r := Rounding{Created: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Backend: models[0], Other: models[1]}
	bar := newProgress(pairs, 1, o.Progress)
	for i := 0; i < len(pairs) && err == nil; i++ {
		bar.begin(i, pairs[i])
		var pair RoundingPair
		if pair, err = roundingOf(ctx, pairs[i], servers, o.AnswerTokens); err == nil {
			r.Pairs = append(r.Pairs, pair)
			bar.over(fmt.Sprintf("%-22s %5d tokens  KL %.4f  top-1 %.2f  same answer %t", pair.ID, pair.Tokens, pair.KLMean, pair.Top1, pair.SameAnswer))
		}
	}
	bar.finish()
	if len(r.Pairs) == 0 {
		return fmt.Errorf("%s could not be measured: %w", pairs[0].ID, err)
	}
	r.sumUp()
	return errors.Join(err, out.writeJSON("rounding.json", &r))
}

// compared describes the servers, which must serve one model. A file that both name is
// read once.
func compared(ctx context.Context, servers [2]*backend) (models [2]Model, err error) {
	var path, hash string
	for i, b := range servers {
		p, err := b.props(ctx)
		if err != nil {
			return models, fmt.Errorf("a server to compare does not answer: %w", err)
		}
		if i == 0 || p.ModelPath != path {
			path, hash = p.ModelPath, fileHash(p.ModelPath)
		}
		models[i] = describeBackend(p, path, hash)
	}
	if models[0].Name != models[1].Name || models[0].SHA256 != models[1].SHA256 {
		return models, fmt.Errorf("%s serves %s and %s %s: the two must serve one model", servers[0].url, models[0].Name, servers[1].url, models[1].Name)
	}
	return models, nil
}

// roundingOf has the second server answer by itself, and then follow the first one's
// answer, token by token.
func roundingOf(ctx context.Context, p Pair, servers [2]*backend, answerTokens int) (RoundingPair, error) {
	r := RoundingPair{ID: p.ID, Group: p.Group}
	prompt, _, err := servers[0].prompt(ctx, p.Target)
	if err != nil {
		return r, err
	}
	r.Tokens = len(prompt)
	first, err := servers[0].complete(ctx, prompt, coldSlot, answerTokens, probabilities)
	if err != nil {
		return r, err
	}
	own, err := servers[1].complete(ctx, prompt, coldSlot, answerTokens, 0)
	if err != nil {
		return r, err
	}
	followed, err := servers[1].follow(ctx, prompt, first.tokens, coldSlot)
	if err != nil {
		return r, err
	}
	q := compare(first.tokens, first.distributions, followed)
	r.KLMean, r.Top1, r.SameAnswer = q.mean, q.top1, own.text == first.text
	return r, nil
}

func (r *Rounding) sumUp() {
	n := float64(len(r.Pairs))
	for _, p := range r.Pairs {
		r.KLMean += p.KLMean / n
		r.Top1 += p.Top1 / n
		r.KLMax = max(r.KLMax, p.KLMean)
		r.SameAnswer += count(p.SameAnswer)
	}
}
