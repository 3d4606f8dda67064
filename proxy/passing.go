package proxy

import (
	"context"
	"net/http"
	"slices"
)

// Requests that pass through in no book. What they have the backend compute takes a slot of the
// backend's choice, whatever that holds by the book.

// slotless are llama-server's POSTs that take no slot: they tell, count or set something.
var slotless = []string{
	"/apply-template", "/tokenize", "/detokenize",
	"/chat/completions/input_tokens", "/v1/chat/completions/input_tokens",
	"/responses/input_tokens", "/v1/responses/input_tokens", "/v1/messages/count_tokens",
	"/v1/chat/completions/control", "/v1/streams/lookup",
	"/lora-adapters", "/props", "/tools", "/cors-proxy",
}

// mayTakeSlot reports whether a request that passes through may have the backend use a slot:
// /v1/systemone and /v1/audio/transcriptions do, and so may what is not known.
func mayTakeSlot(method, path string) bool {
	return method == http.MethodPost && !slices.Contains(slotless, path)
}

// passes counts such a request among the unpinned ones until over is called with what came of it.
// ctx is the server's: see whenOver.
func (sh *Sharer) passes(ctx context.Context, apart bool) (over func(outcome)) {
	l := &sh.unpinned
	if apart {
		l.apart.Store(true)
	}
	l.sent.Add(1)
	return func(o outcome) {
		if o.refused() {
			l.sent.Add(-1)
			return
		}
		sh.whenOver(ctx, o, keptAtMost, func() {
			if l.apart.Load() {
				for _, book := range sh.books() {
					book.doubt()
				}
			}
			l.over.Add(1)
		})
	}
}
