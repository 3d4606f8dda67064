package proxy

import (
	"strings"

	"github.com/tidwall/gjson"
	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

// request is a request that makes the backend prefill a prompt, after
// routing, tenant and prompt extraction.
type request struct {
	ID       string // for the log
	Endpoint Endpoint
	// Body is the decoded JSON body as the client sent it, without a byte order mark.
	Body []byte
	// Authorization is the client's own credential for the backend, or "".
	Authorization string
	Prompt        Prompt
	Policy        configs.Policy
	Route         string
	// Tenant is a digest of who asks, and of Adapters where there are any; "" means no
	// identity, hence no sharing.
	Tenant string
	// Adapters are the LoRA adapters that the body names, as it writes them; "" none that
	// matter to the backend.
	Adapters string
	// Uncomposed: the route or the client wants the model's own answer, and nothing of KV
	// that was composed.
	Uncomposed bool
	// Conversation: the server is given an X-Conversation-Id, and goes on when the client
	// hangs up.
	Conversation bool
	// Off is why this request must not be shared, or "".
	Off string
	// Apart: the configuration knows more than one tenant.
	Apart bool
	// Scattered: tenants are kept apart, and the backend chooses the slot, or several,
	// whatever the body says.
	Scattered bool
}

// ignoresSlots reports whether the backend ignores id_slot and cache_prompt in the body:
// /v1/messages drops members that are not Anthropic's.
func (r *request) ignoresSlots() bool { return r.Endpoint == EndpointMessages }

// guessed reports whether it is uncertain which tokens the backend prefills, or in which slot.
// If it then finds something other than what was filled in, that is no sign that restoring
// failed.
func (r *request) guessed() bool {
	return r.ignoresSlots() || r.Prompt.Kind == PromptInfill
}

// unread reports whether nothing is known of what the body asks for.
func (r *request) unread() bool {
	return r.Off == offEncoding || r.Off == offJSON || r.Off == offDeep || r.Off == offMembers
}

// several reports whether the body asks for several answers, or answers to several prompts, which
// take a slot each, of the backend's choice whatever id_slot says. It reads the body once more.
func (r *request) several() bool {
	if r.unread() {
		return false
	}
	body := objectOf(gjson.ParseBytes(r.Body))
	return several(body.get) || isList(only(body.get("prompt")))
}

// declines reports whether the client wants nothing shared: any of the values says off.
func declines(h *fasthttp.RequestHeader) bool {
	for k, v := range h.AllInOrder() {
		if !foldEqual(k, controlHeader) {
			continue
		}
		for wish := range strings.SplitSeq(string(v), ",") {
			if strings.EqualFold(strings.TrimSpace(wish), "off") {
				return true
			}
		}
	}
	return false
}

// newRequest gathers what the sharer needs to know of a request.
func newRequest(x *exchange, cfg *configs.Config, h *fasthttp.RequestHeader, body []byte, off string) *request {
	r := &request{ID: newID(), Endpoint: x.endpoint, Body: body, Off: off}
	r.Authorization = authorization(h)
	r.Apart = cfg.Apart()
	_, conversations := header(h, conversationHeader)
	r.Conversation = conversations > 0
	var doc gjson.Result
	if off == "" {
		r.Off = unreadable(body)
	}
	if r.Off == "" {
		doc = gjson.ParseBytes(body)
	}
	r.Route, r.Policy = route(cfg, x.path, stringOf(doc.Get("model"), ""), h)
	r.Tenant, r.Adapters = tenant(r.Policy.Tenant, h), adaptersOf(doc)
	declined := declines(h)
	r.Uncomposed = declined || r.Policy.Reuse != configs.ReuseFuzzy
	switch {
	case r.Off != "":
	case r.Policy.Reuse == configs.ReuseOff:
		r.Off = offByRoute
	case declined:
		r.Off = offByHeader
	default:
		if r.Off = offBody(doc); r.Off == "" {
			r.Prompt, r.Off = readPrompt(x.endpoint, doc)
		}
	}
	r.Scattered = r.Apart && (r.ignoresSlots() || r.several())
	return r
}
