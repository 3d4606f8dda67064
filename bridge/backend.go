package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"
	"golang.org/x/sys/unix"
)

// Backend is the HTTP client of the endpoints that llama-server offers to
// whoever manages its slots. It is safe for concurrent use.
type Backend struct {
	// Gone, where given, is called with each error by which the server is seen to be away.
	// Set it before the first call.
	Gone func(error)

	url    string
	apiKey string
	http   *http.Client
	fresh  *http.Client // of connections that serve one request each
}

// BackendError is an answer of the backend other than 200.
type BackendError struct {
	Path   string
	Status int
	Body   string
	// Quotes says that Body may quote a client's prompt. Error leaves it out then.
	Quotes bool
}

func (e *BackendError) Error() string {
	if e.Quotes {
		return fmt.Sprintf("backend answered %s with status %d", e.Path, e.Status)
	}
	return fmt.Sprintf("backend answered %s with status %d: %s", e.Path, e.Status, e.Body)
}

// discreet marks what the backend says to a client's prompt.
func discreet(err error) error {
	var answer *BackendError
	if errors.As(err, &answer) {
		answer.Quotes = true
	}
	return err
}

// ErrChanged says that the backend is not as it was probed: started with other settings.
var ErrChanged = errors.New("the backend is not the one that was probed")

// ErrRouter says that the backend is a llama-server of several models, which starts one for
// each and passes requests on: it has no slots of its own.
var ErrRouter = errors.New("the backend is a router of several models (its /props: role router), which has no slots to share; want a llama-server of one model, with a sidecar of its own")

// maxReply bounds the answers read from the backend: the token list of a long
// prompt is a few megabytes, a rendered prompt as long as what it is rendered from.
const maxReply = 64 << 20

// NewBackend returns a client of the llama-server at url (http://host:port with
// an optional path prefix). apiKey may be empty.
func NewBackend(url, apiKey string, connect time.Duration) *Backend {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = dialer(connect)
	t.Proxy = nil // the backend is next door; a proxy of the environment is not meant for it
	t.MaxIdleConnsPerHost = 16
	alone := t.Clone()
	alone.DisableKeepAlives = true
	return &Backend{url: strings.TrimRight(url, "/"), apiKey: apiKey, http: &http.Client{Transport: t}, fresh: &http.Client{Transport: alone}}
}

// Once asks over new connections alone, which are not kept: net/http repeats nothing on them,
// and they do not occupy a thread of a server that has a fixed number.
func (b *Backend) Once() *Backend {
	o := *b
	o.http = b.fresh
	return &o
}

// Close drops the idle connections.
func (b *Backend) Close() { b.http.CloseIdleConnections() }

// authorization is the Authorization of the sidecar's own requests.
func (b *Backend) authorization() string {
	if b.apiKey == "" {
		return ""
	}
	return "Bearer " + b.apiKey
}

// Keyed reports whether the sidecar was given a key, so that the backend refuses
// clients without one.
func (b *Backend) Keyed() bool { return b.apiKey != "" }

// loading is in llama-server's answers (503) while it loads its model.
const loading = "oading model"

// Away tells whether an error says that the server is not there, or still loads its model:
// it may be another one afterwards. One that only does not answer in time is not away.
func Away(err error) bool {
	var answer *BackendError
	if errors.As(err, &answer) {
		return Loading(err)
	}
	var name *net.DNSError
	if errors.As(err, &name) {
		return name.IsNotFound
	}
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EHOSTUNREACH)
}

// Loading tells whether an error says that the server is still loading its model.
func Loading(err error) bool {
	var answer *BackendError
	return errors.As(err, &answer) && answer.Status == http.StatusServiceUnavailable && strings.Contains(answer.Body, loading)
}

// call is send, with an eye on whether the server is there.
func (b *Backend) call(ctx context.Context, method, path, auth string, body []byte) ([]byte, error) {
	reply, err := b.send(ctx, method, path, auth, body)
	if b.Gone != nil && Away(err) {
		b.Gone(err)
	}
	return reply, err
}

// send makes one request and returns the body of a 200 answer.
func (b *Backend) send(ctx context.Context, method, path, auth string, body []byte) ([]byte, error) {
	ctx, spend := tracked(ctx)
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("cannot ask the backend for %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	// All that is asked here may be asked twice (but see once). net/http then tries again where
	// the server closed a kept connection, as llama-server does after 5 s; an
	// empty value is not sent.
	req.Header["Idempotency-Key"] = nil
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the backend for %s: %w", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.ProtoMajor == 1 {
		spend() // before its body ends, from when on others could be given the connection
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	if err == nil && len(reply) > maxReply {
		err = fmt.Errorf("it is longer than %d bytes", maxReply)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the backend's answer to %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &BackendError{Path: path, Status: resp.StatusCode, Body: gjson.GetBytes(reply, "error.message").String()}
	}
	return reply, nil
}

func (b *Backend) post(ctx context.Context, path, auth string, body any) ([]byte, error) {
	if raw, ok := body.(json.RawMessage); ok {
		return b.call(ctx, http.MethodPost, path, auth, raw)
	}
	var raw bytes.Buffer
	e := json.NewEncoder(&raw)
	e.SetEscapeHTML(false) // of a prompt full of < it would make six times as much
	if err := e.Encode(body); err != nil {
		return nil, fmt.Errorf("cannot encode the request for %s: %w", path, err)
	}
	return b.call(ctx, http.MethodPost, path, auth, raw.Bytes())
}

// Props is what the backend says of itself.
type Props struct {
	ModelPath  string
	Build      string
	Slots      int
	Context    int // tokens of one slot
	Multimodal bool
	Template   string
	// LoRA names the adapters that are applied where a request names none, and their scales,
	// as JSON; "[]" for none.
	LoRA string
	// Adapters counts those that are loaded: one that is not applied can be at any time.
	Adapters int
	// Start is another at each start of a server of 2026 and newer, "" in older ones: what
	// stands for an image in a prompt, which nobody is to guess.
	Start string
	// Sleeping: the server has let go of its model (--sleep-idle-seconds), and reads its file
	// anew at the next request.
	Sleeping bool
}

// Differs names what a later answer to Look says otherwise, "" where the two are the same.
// Any difference means that the server was started anew, or is another one.
func (p Props) Differs(later Props) string {
	later.LoRA, later.Adapters = p.LoRA, p.Adapters
	for _, c := range []struct {
		what string
		same bool
	}{
		{"the model's path", p.ModelPath == later.ModelPath},
		{"the build", p.Build == later.Build},
		{"the number of slots", p.Slots == later.Slots},
		{"the context", p.Context == later.Context},
		{"the mark of its start", p.Start == later.Start},
		{"something else", p == later},
	} {
		if !c.same {
			return c.what
		}
	}
	return ""
}

// Props asks for /props and /lora-adapters.
func (b *Backend) Props(ctx context.Context) (Props, error) {
	p, err := b.Look(ctx)
	if err == nil {
		p.LoRA, p.Adapters, err = b.Adapters(ctx)
	}
	return p, err
}

// Look asks for /props alone, which the server answers at once whatever it is at, and which
// does not wake one that sleeps. Of adapters it says nothing.
func (b *Backend) Look(ctx context.Context) (Props, error) {
	reply, err := b.call(ctx, http.MethodGet, "/props", b.authorization(), nil)
	if err != nil {
		return Props{}, err
	}
	g := gjson.ParseBytes(reply)
	p := Props{
		ModelPath:  g.Get("model_path").String(),
		Build:      g.Get("build_info").String(),
		Slots:      int(g.Get("total_slots").Int()),
		Context:    int(g.Get("default_generation_settings.n_ctx").Int()),
		Multimodal: g.Get("modalities.vision").Bool() || g.Get("modalities.audio").Bool(),
		Template:   g.Get("chat_template").String(),
		Start:      g.Get("media_marker").String(),
		Sleeping:   g.Get("is_sleeping").Bool(),
	}
	switch {
	case g.Get("role").String() == "router":
		return p, ErrRouter
	case p.Slots < 1:
		return p, errors.New("the backend's /props names no slots (total_slots): is it llama-server?")
	}
	return p, nil
}

// Adapters asks for /lora-adapters, since /props names only those of a request: which are
// applied, as Props.LoRA, and how many are loaded. It does so over a connection of its own,
// which the server takes up after those that were there before.
func (b *Backend) Adapters(ctx context.Context) (applied string, loaded int, err error) {
	const path = "/lora-adapters"
	reply, err := b.Once().call(ctx, http.MethodGet, path, b.authorization(), nil)
	var answer *BackendError
	if errors.As(err, &answer) && answer.Status == http.StatusNotFound {
		return "[]", 0, nil // a server that knows none
	}
	if err != nil {
		return "", 0, err
	}
	all := gjson.ParseBytes(reply)
	if !all.IsArray() {
		return "", 0, fmt.Errorf("cannot read the backend's answer to %s: expected a list", path)
	}
	type adapter struct {
		Path  string  `json:"path"`
		Scale float64 `json:"scale"`
	}
	active := []adapter{}
	for _, a := range all.Array() {
		loaded++
		if scale := a.Get("scale").Float(); scale != 0 {
			active = append(active, adapter{a.Get("path").String(), scale})
		}
	}
	text, err := json.Marshal(active)
	return string(text), loaded, err
}

// Health reports whether the backend has its model loaded.
func (b *Backend) Health(ctx context.Context) error {
	_, err := b.call(ctx, http.MethodGet, "/health", b.authorization(), nil)
	return err
}

// slotNow is what /slots says of a slot: whether it is at work, how many tokens of a prompt
// it holds, and whether it decodes speculatively.
type slotNow struct {
	busy       bool
	held       int
	speculates bool
}

// slots asks /slots, which a server may be told not to answer.
func (b *Backend) slots(ctx context.Context) (all []slotNow, err error) {
	reply, err := b.call(ctx, http.MethodGet, "/slots", b.authorization(), nil)
	if err != nil {
		return nil, err
	}
	for _, s := range gjson.ParseBytes(reply).Array() {
		all = append(all, slotNow{s.Get("is_processing").Bool(), int(s.Get("n_prompt_tokens").Int()), s.Get("speculative").Bool()})
	}
	return all, nil
}

// Busy asks /slots which slots are at work. ok is false where the server does
// not tell.
func (b *Backend) Busy(ctx context.Context) (busy []bool, ok bool) {
	all, err := b.slots(ctx)
	for _, s := range all {
		busy = append(busy, s.busy)
	}
	return busy, err == nil
}

// Speculates asks /slots whether the server decodes speculatively, with a draft model or by
// other means. Where it does not tell, it may.
func (b *Backend) Speculates(ctx context.Context) bool {
	all, err := b.slots(ctx)
	return err != nil || slices.ContainsFunc(all, func(s slotNow) bool { return s.speculates })
}

// Held asks /slots how many tokens of a prompt the slot holds.
func (b *Backend) Held(ctx context.Context, slot int) (int, error) {
	all, err := b.slots(ctx)
	if err != nil || slot >= len(all) {
		return 0, err
	}
	return all[slot].held, nil
}

// AllHeld asks /slots how many tokens each slot holds; -1 where one is at work.
func (b *Backend) AllHeld(ctx context.Context) (held []int, err error) {
	all, err := b.slots(ctx)
	for _, s := range all {
		if s.busy {
			s.held = -1
		}
		held = append(held, s.held)
	}
	return held, err
}

// Idle asks /slots for a slot other than but (-1: any) that is not at work, of
// several for the one that holds least. err says that the server does not tell, ok that there
// is one.
func (b *Backend) Idle(ctx context.Context, but int) (slot int, ok bool, err error) {
	all, err := b.slots(ctx)
	for i, s := range all {
		if i == but || s.busy {
			continue
		}
		if !ok || s.held < all[slot].held {
			slot, ok = i, true
		}
	}
	return slot, ok, err
}

// ApplyTemplate renders an OpenAI chat body into the prompt that the server
// would make of it. auth is the client's Authorization, or "": the sidecar's key does
// not stand in for it, so that nothing is done for whom the backend would refuse.
func (b *Backend) ApplyTemplate(ctx context.Context, auth string, chat json.RawMessage) (string, error) {
	reply, err := b.post(ctx, "/apply-template", auth, chat)
	if err != nil {
		return "", discreet(err)
	}
	p := gjson.GetBytes(reply, "prompt")
	if !p.Exists() {
		return "", errors.New("the backend's /apply-template answered without a prompt")
	}
	return p.String(), nil
}

// Tokenize returns the token ids that the server makes of a text. special adds
// what the model puts in front of every prompt; auth is as for ApplyTemplate.
func (b *Backend) Tokenize(ctx context.Context, auth, text string, special, parse bool) ([]int32, error) {
	reply, err := b.post(ctx, "/tokenize", auth, map[string]any{"content": text, "add_special": special, "parse_special": parse})
	if err != nil {
		return nil, discreet(err)
	}
	var r struct {
		Tokens []int32 `json:"tokens"`
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		return nil, fmt.Errorf("cannot read the backend's tokens: %w", err)
	}
	return r.Tokens, nil
}

// Prefilled is the backend's own account of a prefill.
type Prefilled struct {
	CacheN, PromptN int     // tokens found in the cache, tokens computed
	PromptMS        float64 // time of computing
}

// Prefill has the slot compute tokens behind what it holds of them, and
// generate nothing.
func (b *Backend) Prefill(ctx context.Context, slot int, tokens []int32) (Prefilled, error) {
	reply, err := b.post(ctx, "/completion", b.authorization(), map[string]any{
		"prompt": tokens, "n_predict": 0, "id_slot": slot, "cache_prompt": true, "stream": false,
		"n_cache_reuse": 0, "response_fields": []string{"timings", "id_slot"},
	})
	if err != nil {
		return Prefilled{}, err
	}
	if used := gjson.GetBytes(reply, "id_slot"); used.Exists() && int(used.Int()) != slot {
		return Prefilled{}, fmt.Errorf("%w: slot %d was asked for, slot %d computed", ErrChanged, slot, used.Int())
	}
	t := gjson.GetBytes(reply, "timings")
	if !t.Get("cache_n").Exists() {
		return Prefilled{}, errors.New("the backend's timings carry no cache_n: llama-server of September 2025 or newer is needed")
	}
	return Prefilled{int(t.Get("cache_n").Int()), int(t.Get("prompt_n").Int()), t.Get("prompt_ms").Float()}, nil
}

// Save writes the slot's state to a file of that name in the slot directory and
// returns how many tokens and bytes the server says it wrote.
func (b *Backend) Save(ctx context.Context, slot int, file string) (tokens int, bytes int64, err error) {
	reply, err := b.slot(ctx, slot, "save", map[string]any{"filename": file})
	if err != nil {
		return 0, 0, err
	}
	return int(gjson.GetBytes(reply, "n_saved").Int()), gjson.GetBytes(reply, "n_written").Int(), nil
}

// ErrNoCells says that the server's cache has no free cells for what is to be restored: under
// --kv-unified other slots may hold them.
var ErrNoCells = errors.New("no free cells in the backend's cache")

// noCells is in the server's answer where it has none, and where it takes a file for damaged.
const noCells = "available space in KV cache"

// Restore reads a state file of the slot directory into the slot. The server's
// word is no proof that it took: compare cache_n of the next request.
func (b *Backend) Restore(ctx context.Context, slot int, file string) (tokens int, err error) {
	reply, err := b.slot(ctx, slot, "restore", map[string]any{"filename": file})
	var answer *BackendError
	if errors.As(err, &answer) && strings.Contains(answer.Body, noCells) {
		err = fmt.Errorf("%w: %w", ErrNoCells, err)
	}
	if err != nil {
		return 0, err
	}
	return int(gjson.GetBytes(reply, "n_restored").Int()), nil
}

// Erase empties the slot.
func (b *Backend) Erase(ctx context.Context, slot int) error {
	_, err := b.Empty(ctx, slot)
	return err
}

// Empty is Erase, and returns how many tokens the slot held.
func (b *Backend) Empty(ctx context.Context, slot int) (tokens int, err error) {
	reply, err := b.slot(ctx, slot, "erase", map[string]any{})
	return int(gjson.GetBytes(reply, "n_erased").Int()), err
}

func (b *Backend) slot(ctx context.Context, slot int, action string, body any) ([]byte, error) {
	return b.post(ctx, fmt.Sprintf("/slots/%d?action=%s", slot, action), b.authorization(), body)
}
