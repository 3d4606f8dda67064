package proxy

import (
	"net/http"
	"time"

	"github.com/semsharekv/semsharekv/matcher"
)

// State is what was done with a request.
type State string

const (
	StateShared State = "shared" // KV was composed from references
	StateExact  State = "exact"  // a slot with a long exact prefix was chosen
	StateCold   State = "cold"   // the backend computes the prompt by itself
)

// outcome is what became of a forwarded request.
type outcome struct {
	Status     int
	Err        error // transport fault, or nil
	ClientGone bool
	// Began: the client broke the answer off after its first tokens, so the whole prompt was
	// in the slot by then.
	Began bool
	// Failed: the answer, whatever its status, ends with an error or says nothing. Nobody knows
	// how much of the prompt was computed, if any.
	Failed bool
	// CacheN and PromptN are the backend's own count of prompt tokens found in
	// the cache and computed; -1 where the answer did not say.
	CacheN, PromptN int
	// PredictedN is how many tokens were generated; 0 unknown.
	PredictedN int
	// PromptMS is the backend's own prefill time in milliseconds; 0 unknown.
	PromptMS float64
}

// refused: the backend turned the request away before it gave it a slot, also where the client
// did not wait to hear that. A prompt that is too long (400) it refuses after that.
func (o *outcome) refused() bool {
	switch o.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

// counted reports whether the backend's prompt had n tokens, as far as it said.
func (o *outcome) counted(n int) bool {
	return o.CacheN < 0 || o.PromptN < 0 || o.CacheN+o.PromptN == n
}

// Report is everything that is known of a request once it is over. It holds
// token ids, so it never goes to the log.
type Report struct {
	ID            string
	State         State
	Reason        string
	Similarity    float64
	Tokens        []int32
	Refs          []string
	Plan          []matcher.PlanToken
	Displaced     float64 // share of the tokens that stand in another context than in their reference
	Reused        int     // tokens
	Recomputed    int     // tokens
	Work          float64 // share of a cold prefill's token-layers that was computed; where shared
	Slot          int
	Match         time.Duration // tokens, look-up, alignment
	Compose       time.Duration // writing states
	Inject        time.Duration // restores, stages and saves
	CacheN        int
	Cells         int // cells of the prompt in the live cache
	RestoreFailed bool
	NotKept       error // why the prompt became no reference, where it was answered; nil where it did
}
