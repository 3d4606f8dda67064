package proxy

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/valyala/fasthttp"
)

// Answers that are taken up again. llama-server (2026) keeps the answer to a request with an
// X-Conversation-Id, and goes on with it when the client hangs up. The client chooses the id:
// whoever names it reads the answer, ends it, or has another one begin in its place. Where
// tenants are kept apart the server is given a keyed digest of tenant and id for it.

const conversationHeader = "X-Conversation-Id"

// The server's endpoints for answers that it keeps.
const (
	streamPath  = "/v1/stream" // GET, DELETE ?conv_id=ID&from=BYTE
	streamsPath = "/v1/streams"
	lookupPath  = streamsPath + "/lookup" // POST {"conversation_ids":[ID, ...]}
)

// conversations gives clients' ids other names.
type conversations struct{ key []byte }

// newConversations takes the index's secret, which outlives a restart; nil for names that
// last for this run.
func newConversations(secret []byte) conversations {
	if secret == nil {
		secret = randomBytes(sha256.Size)
	}
	return conversations{secret}
}

// name is what the backend calls a tenant's conversation; "" where there is no id or no tenant.
func (c conversations) name(tenant, id string) string {
	if tenant == "" || id == "" {
		return ""
	}
	mac := hmac.New(sha256.New, c.key)
	_, _ = mac.Write([]byte("conversation " + digest(tenant, id)))
	return hex.EncodeToString(mac.Sum(nil))
}

// of returns the backend's name for the conversation in the request's X-Conversation-Id. It is
// empty if the header is absent, or repeated: we cannot know which value the backend would
// use.
func (c conversations) of(tenant string, h *fasthttp.RequestHeader) string {
	id, n := header(h, conversationHeader)
	if n != 1 {
		return ""
	}
	return c.name(tenant, id)
}

// resume turns a tenant's request about answers that are kept into one about its own. Head
// and body are made anew, so that nothing else in them can name an answer.
func (x *exchange) resume(ctx *fasthttp.RequestCtx, tenant string, head *requestHead, body []byte) ([]byte, error) {
	c, prefix := x.server.conversations, x.server.upstream.prefix
	switch {
	case tenant == "":
		return nil, fmt.Errorf("%w: the request has no identity, and an answer is kept for its tenant alone", errForbidden)
	case x.path == streamPath && (x.method == fasthttp.MethodGet || x.method == fasthttp.MethodDelete):
		query := url.Values{}
		for _, key := range []string{"conv_id", "from"} {
			if v := string(ctx.QueryArgs().Peek(key)); v != "" {
				query.Set(key, v)
			}
		}
		if id := query.Get("conv_id"); id != "" {
			query.Set("conv_id", c.name(tenant, id))
		}
		head.uri = []byte(prefix + streamPath + "?" + query.Encode())
		return nil, nil
	case x.path == lookupPath && x.method == fasthttp.MethodPost:
		head.uri, head.decoded = []byte(prefix+lookupPath), true
		return x.lookUp(c, tenant, body)
	}
	return nil, fmt.Errorf("%w: of the answers that the server keeps only GET and DELETE %s?conv_id=ID and POST %s are open",
		errForbidden, streamPath, lookupPath)
}

// lookUp is the body that asks for the tenant's conversations by the backend's names for them.
// Making a name takes a while, so a body may ask for no more than maxMembers, and each is named
// once.
func (x *exchange) lookUp(c conversations, tenant string, body []byte) ([]byte, error) {
	body = withoutBOM(body)
	if off := unreadable(body); off != "" {
		return nil, fmt.Errorf("%w: %s", errUnreadable, off)
	}
	var names, back []string
	asked, seen := 0, map[string]bool{}
	gjson.GetBytes(body, "conversation_ids").ForEach(func(_, v gjson.Result) bool {
		id := stringOf(v, "")
		if name := c.name(tenant, id); name != "" && !seen[id] {
			seen[id] = true
			names = append(names, quote(name))
			back = append(back, quote(name), quote(id))
		}
		asked++
		return asked <= maxMembers
	})
	if asked > maxMembers {
		return nil, fmt.Errorf("%w: it has more than %d conversation_ids; want at most so many", errUnreadable, maxMembers)
	}
	x.renamed = strings.NewReplacer(back...)
	return []byte(`{"conversation_ids":[` + strings.Join(names, ",") + `]}`), nil
}

// rename gives the conversations in the answer the client's ids again.
func (a *answer) rename(names *strings.Replacer, limit int64) error {
	if a.body == nil {
		return nil
	}
	all, err := io.ReadAll(io.LimitReader(a.body, limit+1))
	switch {
	case err != nil:
		return err
	case int64(len(all)) > limit:
		return errors.New("the backend's list of conversations is longer than limits.body_bytes")
	}
	all = []byte(names.Replace(string(all)))
	a.body, a.size = bytes.NewReader(all), len(all)
	return nil
}
