package proxy

import (
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

// passes counts such a request among the unpinned ones. The backend's answer is to be over when
// over is called.
func (sh *Sharer) passes(apart bool) (over func()) {
	if apart {
		sh.unpinned.apart.Store(true)
	}
	sh.unpinned.sent.Add(1)
	return func() {
		if sh.unpinned.apart.Load() {
			for _, book := range sh.books() {
				book.doubt()
			}
		}
		sh.unpinned.over.Add(1)
	}
}
