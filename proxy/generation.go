package proxy

import (
	"strings"

	"github.com/tidwall/gjson"
	"github.com/valyala/fasthttp"

	"github.com/semsharekv/semsharekv/configs"
)

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
	// Adapters are the LoRA adapters that the body names, as it writes them; "" none that
	// matter to the backend.
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

// newGeneration gathers what the sharer needs to know of a request.
func newGeneration(x *exchange, cfg *configs.Config, h *fasthttp.RequestHeader, body []byte, off string) *Generation {
	g := &Generation{ID: newID(), Path: x.path, Body: body, Off: off}
	g.Authorization = authorization(h)
	g.Apart = cfg.Apart()
	var doc gjson.Result
	if off == "" {
		g.Off = unreadable(body)
	}
	if g.Off == "" {
		doc = gjson.ParseBytes(body)
	}
	g.Route, g.Policy = route(cfg, x.path, stringOf(doc.Get("model"), ""), h)
	g.Tenant, g.Adapters = tenant(g.Policy.Tenant, h), adaptersOf(doc)
	wish, _ := header(h, controlHeader)
	declined := strings.EqualFold(strings.TrimSpace(wish), "off")
	g.Own = declined || g.Policy.Reuse != configs.ReuseFuzzy
	switch {
	case g.Off != "":
	case g.Policy.Reuse == configs.ReuseOff:
		g.Off = offByRoute
	case declined:
		g.Off = offByHeader
	default:
		if g.Off = offBody(doc); g.Off == "" {
			g.Prompt, g.Off = readPrompt(x.endpoint, doc)
		}
	}
	g.Scattered = g.Apart && scattered(x.endpoint, objectOf(doc))
	return g
}
