package bridge

import (
	"context"
	"errors"
)

// What Remembers asks for, one after the other: the third is the first one, continued.
var remembered = [3]string{
	"One of the three that are asked for here goes on.",
	"Nothing but another text, which takes the place of what was there before.",
	"One of the three that are asked for here goes on. It does so now.",
}

// Remembers reports whether the server loads into a slot what it keeps in memory of earlier
// prompts (--cache-ram), whoever asked them, though the request names the slot. Servers before
// autumn 2026 do not. What the slot held is lost.
func (b *Backend) Remembers(ctx context.Context, slot int) (bool, error) {
	var got Prefilled
	for _, text := range remembered {
		tokens, err := b.Tokenize(ctx, b.authorization(), text, false, false)
		if err == nil && len(tokens) == 0 {
			err = errors.New("the backend's /tokenize made no tokens of a text")
		}
		if err == nil {
			got, err = b.Prefill(ctx, slot, tokens)
		}
		if err != nil {
			return false, err
		}
	}
	return got.CacheN > 1, nil // one that goes before every prompt may be there in any case
}
