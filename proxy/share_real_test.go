package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"github.com/tidwall/gjson"
	"golang.org/x/sys/unix"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// sharing is a sidecar in front of a real llama-server.
type sharing struct {
	t       testing.TB
	backend *lab.Backend
	server  *Server
	url     string
	mu      sync.Mutex
	reports []Report
}

// startSharing starts both; change adjusts the configuration.
func startSharing(t testing.TB, o lab.BackendOptions, change func(*configs.Config)) *sharing {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real llama-server")
	}
	return besides(t, lab.StartBackend(t, o), change)
}

// startTiny starts both with a tiny model of the test's own, for what is no matter of a model's
// wits, and shares whether it pays or not. Text is one token a byte.
func startTiny(t testing.TB, o lab.BackendOptions, change func(*configs.Config)) *sharing {
	t.Helper()
	o.Model = tinymodel.Make(t, tinymodel.Options{Context: 8192})
	s := startSharing(t, o, change)
	s.server.sharer.Try(&Trial{})
	return s
}

// besides starts a sidecar beside a backend that runs, and waits until that is probed.
func besides(t testing.TB, b *lab.Backend, change func(*configs.Config)) *sharing {
	t.Helper()
	s := unprobed(t, b, change)
	s.ready()
	return s
}

func unprobed(t testing.TB, b *lab.Backend, change func(*configs.Config)) *sharing {
	t.Helper()
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir = b.URL, b.SlotDir
	cfg.Backend.Library = "../bin/libsemshare.so"
	cfg.Store.MinTokens, cfg.Defaults.MinTokens = 64, 64
	cfg.Defaults.Budget = time.Minute // the machine may be busy
	cfg.Index.Timeout = 20 * time.Second
	if change != nil {
		change(cfg)
	}
	server, err := New(cfg, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sharing{t: t, backend: b, server: server, url: "http://" + ln.Addr().String()}
	server.sharer.Observe(func(r Report) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.reports = append(s.reports, r)
	})
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln, nil) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = server.Shutdown(ctx)
		<-done
	})
	return s
}

func (s *sharing) ready() {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); s.server.sharer.Ready() != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("nothing can be shared: %v", s.server.sharer.Ready())
		}
	}
}

// reply is an answer through the sidecar.
type reply struct {
	status int
	did    string // X-SemShareKV
	body   string
	report Report
}

func (r reply) state() string { return strings.SplitN(r.did, ";", 2)[0] }

// post sends one request and waits until it is captured.
func (s *sharing) post(path, body string, headers ...string) reply {
	s.t.Helper()
	req, _ := http.NewRequest(http.MethodPost, s.url+path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := s.server.sharer.Drain(ctx); err != nil {
		s.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, did: resp.Header.Get("X-SemShareKV"), body: string(b)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.reports); n > 0 {
		r.report = s.reports[n-1]
	}
	return r
}

func (s *sharing) complete(prompt string, headers ...string) reply {
	s.t.Helper()
	b, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 4, "temperature": 0, "n_probs": 50})
	r := s.post("/completion", string(b), headers...)
	if r.status != http.StatusOK {
		s.t.Fatalf("status %d: %s", r.status, r.body)
	}
	return r
}

func (s *sharing) want(r reply, state string) {
	s.t.Helper()
	if r.state() != state {
		s.t.Fatalf("the sidecar did %q, want %s", r.did, state)
	}
}

// tale is some 330 tokens of prose; the year is a parameter.
func tale(year string) string {
	return "The lighthouse at Carrow Point was built in " + year + " by a company of masons who came down from the hills with their tools in barrows. " +
		`They cut the granite from the cliff itself and carried it up on their backs, and the tower rose slowly over three summers. The keeper
lived in a low house beside it with a stove, a table and a shelf of books that the sea air had swollen. Every evening he climbed the narrow
stairs, trimmed the wick, and lit the lamp, and every morning he put it out again and wrote the weather into a ledger. Ships that passed to the
north saw the light and turned away from the reef; ships that passed to the south did not see it at all, because of the headland, and had to
trust to their charts. In winter the wind pulled at the shutters for weeks, and the path to the village was lost under drifts, so that the
keeper spoke to nobody but the gulls. He did not mind. He had come there to be alone, he said, and had been given more of it than he had asked
for. When the company of masons came back many years later to mend the stairs, they found the ledgers piled to the ceiling, every page filled
in the same small hand, and the lamp burning although it was noon. They asked the fishermen what had become of the old man, and were told that
he had rowed out one calm morning to look at the light from the sea, as he had always meant to do, and that nobody had thought to ask him why.`
}

const unrelated = `To configure the package, unpack the archive and run the script in its top directory. It checks for a compiler, for the headers of the
libraries named below, and for a shell that understands functions. Options given on the command line override those found in the environment.
If a check fails, the log file in the same directory says which command was run and what it printed. Should the linker complain about missing
symbols, make sure that no older release is installed under another prefix. The test suite takes about ten minutes on a slow machine. It starts
a server on a free port, sends it the requests listed in the table, and compares the answers with the recorded ones. Set the variable that names
the temporary directory if the default one is too small. After installation, the manual pages are found under the share directory, and a short
example of every command in the examples directory. Report bugs with the output of the version command and the smallest input that shows them.`

// topLogprobs maps each of the likeliest tokens of the first position to its
// log-probability.
func topLogprobs(body string) map[int64]float64 {
	out := map[int64]float64{}
	for _, p := range gjson.Get(body, "completion_probabilities.0.top_logprobs").Array() {
		out[p.Get("id").Int()] = p.Get("logprob").Float()
	}
	return out
}

// farthest is the greatest difference among log-probabilities worth naming.
func farthest(a, b map[int64]float64) float64 {
	worst := 0.0
	for id, x := range a {
		if y, ok := b[id]; ok && x > -4 {
			worst = max(worst, math.Abs(x-y))
		}
	}
	return worst
}

func TestSharingReusesASimilarPromptAndNothingOfAnUnrelatedOne(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 4096}, nil)
	if why := s.live().probed.NotFar; why != "" {
		t.Errorf("keys were not compared far away: %s", why)
	}
	s.want(s.complete(tale("1812")), "cold")
	r := s.complete("Once more. " + tale("1812"))
	s.want(r, "shared")
	if r.report.CacheN <= 0 || r.report.CacheN+int(gjson.Get(r.body, "timings.prompt_n").Int()) != len(r.report.Tokens) {
		t.Errorf("cache_n %d of %d tokens", r.report.CacheN, len(r.report.Tokens))
	}
	s.want(s.complete(unrelated), "cold")
	direct := s.direct(tale("1847"))
	r = s.complete(tale("1847"))
	s.want(r, "shared")
	if d := farthest(topLogprobs(direct), topLogprobs(r.body)); d > 0.5 {
		t.Errorf("with a changed year the log-probabilities are up to %.2f off the cold ones", d)
	}
}

// TestSharingDrawsOnAsManyReferencesAsAreAllowed: also on more than the index is asked for
// otherwise.
func TestSharingDrawsOnAsManyReferencesAsAreAllowed(t *testing.T) {
	const passages = candidates + 4
	s := startSharing(t, lab.BackendOptions{Context: 4096}, func(c *configs.Config) {
		c.Defaults.References, c.Defaults.Seam, c.Store.MinTokens = passages, 16, 32
	})
	words := strings.Fields(tale("1812") + " " + unrelated)
	r := rand.New(rand.NewPCG(1, 1))
	var all []string
	for range passages {
		var p strings.Builder
		for range 40 {
			p.WriteString(words[r.IntN(len(words))] + " ")
		}
		all = append(all, p.String())
		s.want(s.complete(p.String()), "cold")
	}
	got := s.complete(strings.Join(all, "\n")).report
	if len(got.Refs) != passages {
		t.Errorf("it drew on %d references (similarity %.2f), want %d", len(got.Refs), got.Similarity, passages)
	}
}

// TestSharingIsNotTriedWithAPromptThatTheBackendRefuses: one that fills its slot. One token
// less is shared.
func TestSharingIsNotTriedWithAPromptThatTheBackendRefuses(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 1024, Slots: 2}, nil)
	first := s.complete("First. " + tale("1812"))
	tokens := append(slices.Clone(first.report.Tokens[1:]), first.report.Tokens...)
	ask := func(n int) reply {
		b, _ := json.Marshal(map[string]any{"prompt": tokens[:n], "n_predict": 1})
		return s.post("/completion", string(b))
	}
	const context = 512
	if r := ask(context); r.status != http.StatusBadRequest || r.did != "cold; reason="+coldLong {
		t.Errorf("%d tokens in a slot of %d: status %d, %q; expected the backend's refusal, and nothing shared", context, context, r.status, r.did)
	}
	if r := ask(context - 1); r.status != http.StatusOK || r.state() != "shared" {
		t.Errorf("%d tokens in a slot of %d: status %d, %q; expected it shared", context-1, context, r.status, r.did)
	}
}

// TestTokensThatTheModelDoesNotHaveAreNoFaultOfSharing sends ids that the backend refuses, more
// often than sharing survives its refusing a fill.
func TestTokensThatTheModelDoesNotHaveAreNoFaultOfSharing(t *testing.T) {
	f := func(model string) {
		t.Helper()
		s := startSharing(t, lab.BackendOptions{Context: 2048, Slots: 2}, func(c *configs.Config) { c.Backend.Model = model })
		first := s.complete(tale("1812")).report.Tokens
		ask := func(id int32) reply {
			tokens := slices.Clone(first)
			tokens[len(tokens)/2] = id
			b, _ := json.Marshal(map[string]any{"prompt": tokens, "n_predict": 1})
			return s.post("/completion", string(b))
		}
		for range 3 {
			if r := ask(99_999_999); r.status != http.StatusBadRequest || r.state() != "cold" {
				t.Fatalf("status %d, %q; expected the backend's refusal, and nothing shared", r.status, r.did)
			}
		}
		if err := s.server.sharer.Ready(); err != nil {
			t.Errorf("model file %q: %v", model, err)
		}
		s.want(ask(first[0]), "shared")
	}
	f("")
	f("/nowhere/model.gguf")
}

// direct asks the backend itself, with nothing cached.
func (s *sharing) direct(prompt string) string {
	s.t.Helper()
	b, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 4, "temperature": 0, "n_probs": 50, "cache_prompt": false})
	resp, err := http.Post(s.backend.URL+"/completion", "application/json", bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	out, _ := io.ReadAll(resp.Body)
	return string(out)
}

func TestSharingPassesEveryEndpointThatHasAPrompt(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	quoted, _ := json.Marshal(tale("1812"))
	changed, _ := json.Marshal(tale("1815"))
	for _, e := range []struct{ path, body string }{
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":%s}],"max_tokens":2}`},
		{"/v1/completions", `{"prompt":%s,"max_tokens":2}`},
		{"/v1/responses", `{"input":%s,"max_output_tokens":2}`},
		{"/v1/messages", `{"messages":[{"role":"user","content":%s}],"max_tokens":2}`},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":%s}],"max_tokens":2,"stream":true}`},
		{"/completion", "\ufeff" + `{"prompt":%s,"n_predict":2}`}, // llama-server, too, skips a byte order mark
	} {
		if err := s.server.sharer.Forget(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.want(s.post(e.path, fmt.Sprintf(e.body, quoted)), "cold")
		r := s.post(e.path, fmt.Sprintf(e.body, changed))
		if r.state() != "shared" || r.report.RestoreFailed {
			t.Errorf("%s: %s", e.path, r.did)
		}
	}
}

func TestSharingKeepsTenantsApart(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{Slots: 1}, func(c *configs.Config) {
		c.Defaults.Tenant = configs.Tenant{Source: "header", Name: "X-Tenant"}
	})
	s.want(s.complete(tale("1812"), "X-Tenant", "y"), "cold")
	// The only slot holds tenant y's prompt: x must find nothing of it, neither
	// as a reference nor as a prefix.
	r := s.complete(tale("1812"), "X-Tenant", "x")
	s.want(r, "cold")
	if n := gjson.Get(r.body, "timings.cache_n").Int(); n != 0 {
		t.Errorf("tenant x found %d tokens of tenant y's prompt in the cache", n)
	}
	for _, h := range [][]string{nil, {"X-Tenant", "x", "X-SemShareKV", "off"}} {
		r := s.complete(tale("1812"), h...)
		if n := gjson.Get(r.body, "timings.cache_n").Int(); n != 0 || r.state() != "cold" {
			t.Errorf("headers %v: %s, cache_n %d", h, r.did, n)
		}
	}
	s.want(s.complete("Again: "+tale("1812"), "X-Tenant", "y"), "shared")

	// Even an index that names y's reference to z tells z nothing.
	lv := s.server.sharer.live.Load()
	for _, m := range lv.store.All() {
		p, err := lv.store.Prompt(m.ID)
		if err != nil {
			t.Fatal(err)
		}
		scope := s.server.sharer.scope(digest("header", "x-tenant", "z"), lv.refKey)
		if err := s.server.sharer.index.Add(t.Context(), scope, m.ID, lv.signer.Fingerprint(p.Tokens), p.Used); err != nil {
			t.Fatal(err)
		}
	}
	r = s.complete("Once more: "+tale("1812"), "X-Tenant", "z")
	if r.did != "cold; reason="+coldNothing {
		t.Errorf("tenant z with an index that names other tenants' references: %s", r.did)
	}
}

// TestNoTenantFindsWhatAnotherLeftInASlot: whatever tenant y asked, and however, x's
// prompt of the same text is computed from its first token.
func TestNoTenantFindsWhatAnotherLeftInASlot(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 4096, NoRAMCache: true}, func(c *configs.Config) {
		c.Defaults.Tenant = configs.Tenant{Source: "header", Name: "X-Tenant"}
		c.Routes = []configs.Route{{Name: "plain", Match: configs.Match{Headers: map[string]string{"X-Plain": "yes"}}, Policy: c.Defaults}}
		c.Routes[0].Reuse = configs.ReuseOff
	})
	text, _ := json.Marshal(tale("1812")[:400])
	prompt := string(text)
	chat := `"max_tokens":1,"messages":[{"role":"user","content":` + prompt + `}]`
	forms := []struct {
		path, body string
		headers    []string
	}{
		{"/completion", `{"n_predict":1,"prompt":` + prompt + `}`, nil},
		{"/completion", `{"n_predict":1,"prompt":` + prompt + `}`, []string{"X-SemShareKV", "off"}},
		{"/completion", `{"n_predict":1,"prompt":` + prompt + `}`, []string{"X-Plain", "yes"}},
		{"/completion", `{"n_predict":1,"prompt":[` + prompt + `,` + prompt + `]}`, nil},
		{"/completion", `{"n_predict":1,"id_slot":0,"prompt":` + prompt + `}`, nil},
		{"/completion", `{"cache_prompt":true,"id_slot":-1,"n_predict":1,"prompt":` + prompt + `,"id_slot":1,"cache_prompt":true}`, nil},
		{"/completion", `{"n":1,"n_predict":1,"prompt":` + prompt + `,"n":2}`, nil},
		{"/completion", `{"\u0063ache_prompt":true,"n_predict":1,"prompt":` + prompt + `}`, nil},
		{"/v1/completions", `{"max_tokens":1,"prompt":` + prompt + `}`, nil},
		{"/v1/chat/completions", `{` + chat + `}`, nil},
		{"/v1/chat/completions", `{"n":2,` + chat + `}`, nil},
		{"/v1/responses", `{"max_output_tokens":1,"input":` + prompt + `}`, nil},
		{"/v1/messages", `{` + chat + `}`, nil},
	}
	for _, y := range forms {
		for _, i := range []int{0, 9, 12} {
			x := forms[i]
			r := s.post(y.path, y.body, append([]string{"X-Tenant", "y"}, y.headers...)...)
			if r.status != http.StatusOK {
				t.Fatalf("%s %.60s: status %d: %s", y.path, y.body, r.status, r.body)
			}
			for range 2 { // what is refused takes a slot, and leaves in it what was there
				s.post("/completion", `{"n_predict":1,"grammar":"root ::= (","prompt":`+prompt+`}`, "X-Tenant", "x")
			}
			r = s.post(x.path, x.body, append([]string{"X-Tenant", "x"}, x.headers...)...)
			if n := cached(r.body); r.status != http.StatusOK || n > 0 {
				t.Errorf("after y's %s %.60s\nx's %s %.60s: status %d, %s, %d tokens found", y.path, y.body, x.path, x.body, r.status, r.did, n)
			}
			// x's own may be found by x, so it must be forgotten.
			if err := s.server.sharer.Forget(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// cached is how many of the prompt's tokens the backend says it found.
func cached(answer string) int64 {
	n := int64(0)
	for _, path := range []string{"timings.cache_n", "0.timings.cache_n", "1.timings.cache_n", "usage.prompt_tokens_details.cached_tokens",
		"usage.input_tokens_details.cached_tokens", "usage.cache_read_input_tokens"} {
		n = max(n, gjson.Get(answer, path).Int())
	}
	return n
}

func TestUnreadableBodiesAreRefusedWhereTenantsAreKeptApart(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, func(c *configs.Config) {
		c.Defaults.Tenant = configs.Tenant{Source: "api_key"}
	})
	for _, body := range []string{"\ufeff\ufeff{\"prompt\":\"a\"}", "{\"prompt\":\"a\"}\x00", strings.Repeat("[", 8<<20)} {
		if r := s.post("/completion", body, "Authorization", "Bearer k"); r.status != http.StatusBadRequest {
			t.Errorf("%.20q: status %d, expected 400", body, r.status)
		}
	}
}

func TestSharingDoesNothingForAClientThatTheBackendRefuses(t *testing.T) {
	const key = "secret"
	s := startTiny(t, lab.BackendOptions{APIKey: key}, func(c *configs.Config) { c.Backend.APIKey = key })
	s.want(s.complete(tale("1812"), "Authorization", "Bearer "+key), "cold")
	text, _ := json.Marshal("One. " + tale("1812"))
	for _, h := range [][]string{nil, {"Authorization", "Bearer guess"}, {"X-Api-Key", "guess"}} {
		for _, prompt := range []string{string(text), "[1,2,3]", `[1, "One."]`} {
			r := s.post("/completion", `{"n_predict":1,"prompt":`+prompt+`}`, h...)
			if r.status != http.StatusUnauthorized || r.did != "cold; reason="+coldRefused {
				t.Errorf("headers %q, prompt %.20s: status %d, %q", h, prompt, r.status, r.did)
			}
		}
	}
	s.want(s.complete("Two. "+tale("1812"), "X-Api-Key", key), "shared")
}

// TestNobodysSlotsAreTakenForAClientThatTheBackendRefuses, and none is emptied: what would need
// all of them is refused before.
func TestNobodysSlotsAreTakenForAClientThatTheBackendRefuses(t *testing.T) {
	const key = "secret"
	s := startTiny(t, lab.BackendOptions{APIKey: key, NoRAMCache: true}, func(c *configs.Config) {
		apart(c)
		c.Backend.APIKey = key
	})
	text, _ := json.Marshal(tale("1812")[:400])
	s.complete(tale("1812")[:400], "Authorization", "Bearer "+key, "X-Tenant", "x")
	chat := `{"max_tokens":1,"messages":[{"role":"user","content":` + string(text) + `}]}`
	for _, h := range [][]string{{"X-Tenant", "y"}, {"X-Tenant", "y", "X-Api-Key", "guess"}, nil} {
		for path, body := range map[string]string{"/v1/messages": chat, "/completion": `{"n_predict":1,"n":2,"prompt":` + string(text) + `}`} {
			if r := s.post(path, body, h...); r.status != http.StatusUnauthorized || !strings.Contains(r.body, invalidKey) {
				t.Errorf("%s, headers %q: status %d, %s", path, h, r.status, r.body)
			}
		}
	}
	if !slices.ContainsFunc(s.live().slots.all, func(sl *slot) bool { return len(sl.tokens) > 0 }) {
		t.Error("the slots were emptied for a client that was refused")
	}
	if r := s.post("/v1/messages", chat, "X-Tenant", "y", "X-Api-Key", key); r.status != http.StatusOK {
		t.Errorf("with the key: status %d, %s", r.status, r.body)
	}
}

// dropAll drops the references; the slots keep what they hold.
func (s *sharing) dropAll() {
	for _, m := range s.live().store.All() {
		s.live().store.Drop(m.ID, "test")
	}
}

// references are the state files of the store.
func (s *sharing) references() []string {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.backend.SlotDir, "*.bin"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("no references: %v", err)
	}
	return files
}

func TestSharingDropsADamagedReferenceAndAnswers(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	f := func(name string, damage func(path string) error) {
		t.Helper()
		if err := s.server.sharer.Forget(context.Background()); err != nil {
			t.Fatal(err)
		}
		s.want(s.complete(tale("1812")), "cold")
		for _, path := range s.references() {
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
		}
		if r := s.complete("Damaged. " + tale("1812")); r.state() == "shared" {
			t.Errorf("%s: shared all the same", name)
		}
	}
	f("truncated", func(p string) error { return os.Truncate(p, 5000) })
	f("corrupt", func(p string) error { return overwrite(p, 90000, []byte("garbage")) })
	f("wrong version", func(p string) error { return overwrite(p, 4, []byte{9}) })
	f("removed", os.Remove)
	damaged := 0.0
	for _, reason := range []string{"corrupt", "unsupported", "missing"} {
		damaged += testutil.ToFloat64(s.server.metrics.Dropped.WithLabelValues(reason))
	}
	if damaged == 0 {
		t.Error("no reference is counted as dropped for its damage")
	}
	if err := s.server.sharer.Forget(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("Whole again. "+tale("1812")), "shared")
}

func TestSharingKeepsAPromptAgainWhoseReferenceIsGone(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete(tale("1812")), "exact")
	if n := len(s.references()); n != 1 {
		t.Fatalf("%d references of one prompt asked twice, want 1", n)
	}
	s.dropAll()
	s.want(s.complete(tale("1812")), "exact")
	if n := len(s.references()); n != 1 {
		t.Fatalf("%d references after the only one was dropped and the prompt came again, want 1", n)
	}
	s.want(s.complete("Once more. "+tale("1812")), "shared")
}

// overwrite changes bytes in place, as a bad disk would.
func overwrite(path string, at int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, at)
	return err
}

func TestSharingSurvivesABackendRestart(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	s.want(s.complete(tale("1812")), "cold")
	if err := s.backend.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := s.complete("After the restart. " + tale("1812"))
	if r.status != http.StatusOK {
		t.Fatalf("status %d", r.status)
	}
	s.resumes("the backend came back")
}

// resumes asks until a prompt like the reference is shared again.
func (s *sharing) resumes(after string) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		r := s.complete(fmt.Sprint(time.Now().UnixNano(), " ", tale("1812")))
		if r.state() == "shared" {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("sharing did not resume after %s: %s", after, r.did)
		}
	}
}

func TestSharingGoesOnAfterASidecarRestart(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	s.want(s.complete(unrelated), "cold")
	damaged := s.references()
	s.want(s.complete(tale("1812")), "cold")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(damaged[0], 5000); err != nil {
		t.Fatal(err)
	}
	s = besides(t, s.backend, nil)
	s.server.sharer.Try(&Trial{})
	if n := testutil.ToFloat64(s.server.metrics.Dropped.WithLabelValues("corrupt")); n != 1 {
		t.Errorf("%v references are counted as corrupt, want the one that was damaged meanwhile", n)
	}
	s.resumes("the sidecar came back") // the index is rebuilt beside the requests
}

func TestSharingGoesColdWhileRedisIsDownAndComesBack(t *testing.T) {
	redis := lab.StartRedis(t)
	s := startTiny(t, lab.BackendOptions{}, func(c *configs.Config) { c.Index.Redis = redis.URL })
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("One. "+tale("1812")), "shared")
	redis.Kill()
	failed := func() float64 { return testutil.ToFloat64(s.server.metrics.IndexErrors) }
	before := failed()
	within(t, "an outage is counted without a request", func() bool { return failed() > before })
	r := s.complete("Two. " + tale("1812"))
	if s.want(r, "cold"); r.report.NotKept != errNotIndexed {
		t.Errorf("not kept: %v; expected %v", r.report.NotKept, errNotIndexed)
	}
	if n := testutil.ToFloat64(s.server.metrics.Captures.WithLabelValues("failed")); n > 0 {
		t.Errorf("%v captures failed, expected none", n)
	}
	redis.Start() // empty
	s.resumes("Redis came back")
}

func TestSharingAnswersWhenTheSlotDirectoryIsFullOrGone(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, func(c *configs.Config) { c.Store.Budget = 1 << 18 })
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("No room for the first. "+tale("1812")), "cold")
	if err := os.RemoveAll(s.backend.SlotDir); err != nil {
		t.Fatal(err)
	}
	s.want(s.complete(unrelated), "cold")
}

func TestSharingAnswersWhenTheSlotDirectoryIsReadOnly(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("Writable. "+tale("1812")), "shared")
	dir := s.backend.SlotDir
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mounting wants root: %v", err) // to whom modes mean nothing
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	s.want(s.complete("Read-only. "+tale("1812")), "cold")
	s.want(s.complete(unrelated), "cold")
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	s.resumes("the directory became writable again")
}

func TestSharingWithAcceptTakesOverWhatItCannotRepair(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 4096}, func(c *configs.Config) {
		c.Defaults.Unrepaired, c.Defaults.RepairShare = configs.UnrepairedAccept, 0
	})
	s.want(s.complete(tale("1812")), "cold")
	r := s.complete(strings.NewReplacer("slowly", "quickly", "fishermen", "sailors who still lived there", "narrow", "steep").Replace(tale("1812")))
	s.want(r, "shared")
	if r.report.Recomputed > 2 {
		t.Errorf("%d tokens were recomputed without a budget", r.report.Recomputed)
	}
	if r.report.Cells >= len(r.report.Tokens) {
		t.Errorf("%d cells for %d tokens: inserted ones should have none", r.report.Cells, len(r.report.Tokens))
	}
}

func TestSharingServesManyAtOnce(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 8192, Slots: 4}, nil)
	s.want(s.complete(tale("1812")), "cold")
	var wg sync.WaitGroup
	var mu sync.Mutex
	states := map[string]int{}
	for i := range 8 {
		wg.Go(func() {
			b, _ := json.Marshal(map[string]any{"prompt": fmt.Sprintf("Number %d. %s", i, tale("1812")), "n_predict": 2})
			resp, err := http.Post(s.url+"/completion", "application/json", bytes.NewReader(b))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			mu.Lock()
			defer mu.Unlock()
			states[strings.SplitN(resp.Header.Get("X-SemShareKV"), ";", 2)[0]]++
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	_ = s.server.sharer.Drain(context.Background())
	if states["shared"] < 4 {
		t.Errorf("states %v: want most of 8 shared", states)
	}
	for _, r := range s.reports {
		if r.RestoreFailed {
			t.Errorf("request %s: cache_n %d did not confirm what was injected", r.ID, r.CacheN)
		}
	}
}

func TestSharingWorksWithUnifiedSlotsThatAreEmptied(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{Unified: true, CacheIdleSlots: true}, nil)
	s.want(s.complete(tale("1812")), "cold")
	r := s.complete("Once more. " + tale("1812"))
	s.want(r, "shared")
	if r.report.RestoreFailed {
		t.Errorf("cache_n %d did not confirm what was injected", r.report.CacheN)
	}
}
