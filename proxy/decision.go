package proxy

import (
	"encoding/json"
	"time"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// PromptKind is the form in which a request states its prompt.
type PromptKind uint8

const (
	PromptText   PromptKind = iota // a string, tokenized with special tokens parsed
	PromptTokens                   // token ids
	PromptMixed                    // an array of strings and token ids
	PromptChat                     // messages, through the chat template
	PromptInfill                   // prefix and suffix around a hole
)

// Prompt is the prompt of one request, in the form it came in.
type Prompt struct {
	Kind   PromptKind
	Text   string
	Tokens []int32
	Parts  []PromptPart
	// Chat is an OpenAI chat body, as /apply-template takes it.
	Chat   json.RawMessage
	Infill Infill
}

// PromptPart is one element of a mixed prompt: a string or token ids.
type PromptPart struct {
	Text   string
	Tokens []int32
}

// Infill is the prompt of a fill-in-the-middle request.
type Infill struct {
	Prefix, Suffix, Prompt string
	Extra                  []InfillFile
}

// InfillFile is a file given as context to a fill-in-the-middle request.
type InfillFile struct{ Name, Text string }

// Generation is a request that makes the backend prefill a prompt, after
// routing, tenant and prompt extraction.
type Generation struct {
	ID   string // for the log
	Path string
	// Body is the decoded JSON body as the client sent it.
	Body []byte
	// Authorization is the client's own credential for the backend, or "".
	Authorization string
	Prompt        Prompt
	Policy        configs.Policy
	Route         string
	// Tenant is a digest of who asks, and of Adapters where there are any; "" means no
	// identity, hence no sharing.
	Tenant string
	// Adapters are the LoRA adapters that the body names, as it writes them; "" none.
	Adapters string
	// Own: the route or the client wants the model's own answer, and nothing of KV that was
	// composed.
	Own bool
	// Off is why this request must not be shared, or "".
	Off string
	// Apart: the configuration knows more than one tenant.
	Apart bool
	// Scattered: tenants are kept apart, and the backend chooses the slot, or several,
	// whatever the body says.
	Scattered bool
}

// unheeding reports whether the backend takes no word about slots and its cache with it.
func (g *Generation) unheeding() bool { return endpoints[g.Path] == EndpointMessages }

// guessed reports whether what the backend prefills, or in which slot, is not known for
// certain: that it finds something else than what was filled in says nothing of restoring.
func (g *Generation) guessed() bool {
	return g.unheeding() || g.Prompt.Kind == PromptInfill
}

// unread reports whether nothing is known of what the body asks for.
func (g *Generation) unread() bool {
	return g.Off == offEncoding || g.Off == offJSON || g.Off == offDeep
}

// searches says that the backend would look for the prompt in other tenants' slots, or "".
func (g *Generation) searches() string {
	if !g.unheeding() {
		return ""
	}
	return "/v1/messages takes no cache_prompt, and other tenants' slots could not be emptied (that takes llama-server --slot-save-path); /v1/chat/completions needs none of that"
}

// State is what was done with a request.
type State string

const (
	StateShared State = "shared" // KV was composed from references
	StateExact  State = "exact"  // a slot with a long exact prefix was chosen
	StateCold   State = "cold"   // the backend computes the prompt by itself
)

// Outcome is what became of a forwarded request.
type Outcome struct {
	Status     int
	Err        error // transport fault, or nil
	ClientGone bool
	// CacheN and PromptN are the backend's own count of prompt tokens found in
	// the cache and computed; -1 where the answer did not say.
	CacheN, PromptN int
	// PredictedN is how many tokens were generated; 0 unknown.
	PredictedN int
	// PromptMS is the backend's own prefill time in milliseconds; 0 unknown.
	PromptMS float64
	// FirstByte is the time from forwarding to the first byte of the body.
	FirstByte time.Duration
}

// counted reports whether the backend's prompt had n tokens, as far as it said.
func (o *Outcome) counted(n int) bool {
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
	Total         time.Duration // whole Prepare
	CacheN        int
	Cells         int // cells of the prompt in the live cache
	RestoreFailed bool
	NotKept       error // why the prompt became no reference, where it was answered; nil where it did
}
