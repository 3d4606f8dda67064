package eval

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// backend is a llama-server, asked directly, or, for chats alone, the sidecar
// in front of it.
type backend struct {
	url, key string
	http     *http.Client
}

func newBackend(url, key string) *backend {
	// A connection for each request: llama-server closes idle ones after seconds,
	// and a POST that meets such a close is not repeated.
	return &backend{url: strings.TrimRight(url, "/"), key: key, http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// maxFault bounds how much of a failed answer is quoted.
const maxFault = 300

func (b *backend) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		j, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(j)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if b.key != "" {
		req.Header.Set("Authorization", "Bearer "+b.key)
	}
	res, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		said, _ := io.ReadAll(io.LimitReader(res.Body, maxFault))
		err := fmt.Errorf("%s %s: %s: %s", method, b.url+path, res.Status, bytes.TrimSpace(said))
		if res.StatusCode == http.StatusUnauthorized {
			err = fmt.Errorf("%w; name a key that the server accepts: --api-key-env, or backend.api_key", err)
		}
		return nil, err
	}
	return res, nil
}

func (b *backend) call(ctx context.Context, method, path string, body, into any) error {
	res, err := b.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		return fmt.Errorf("%s %s: %w", method, b.url+path, err)
	}
	return nil
}

type props struct {
	Build     string `json:"build_info"`
	ModelPath string `json:"model_path"`
	Slots     int    `json:"total_slots"`
	Defaults  struct {
		Context int `json:"n_ctx"`
	} `json:"default_generation_settings"`
}

// propsTime bounds the first question to a server, which costs it nothing to answer.
const propsTime = 10 * time.Second

func (b *backend) props(ctx context.Context) (*props, error) {
	ctx, cancel := context.WithTimeout(ctx, propsTime)
	defer cancel()
	var p props
	return &p, b.call(ctx, http.MethodGet, "/props", nil, &p)
}

// message is a chat of one user's message.
func message(text string) []map[string]string {
	return []map[string]string{{"role": "user", "content": text}}
}

// prompt returns the tokens of a user's message in the model's chat template,
// and the text of each.
func (b *backend) prompt(ctx context.Context, text string) ([]int32, []string, error) {
	var filled struct {
		Prompt string `json:"prompt"`
	}
	if err := b.call(ctx, http.MethodPost, "/apply-template", map[string]any{"messages": message(text)}, &filled); err != nil {
		return nil, nil, err
	}
	var out struct {
		Tokens []struct {
			ID    int32           `json:"id"`
			Piece json.RawMessage `json:"piece"`
		} `json:"tokens"`
	}
	err := b.call(ctx, http.MethodPost, "/tokenize",
		map[string]any{"content": filled.Prompt, "add_special": true, "parse_special": true, "with_pieces": true}, &out)
	if err != nil {
		return nil, nil, err
	}
	tokens := make([]int32, len(out.Tokens))
	raw := make([][]byte, len(out.Tokens))
	for i, t := range out.Tokens {
		tokens[i] = t.ID
		if raw[i], err = pieceBytes(t.Piece); err != nil {
			return nil, nil, err
		}
	}
	return tokens, joinCharacters(raw), nil
}

// pieceBytes reads a piece, which is a string, or a list of bytes where it is
// no valid UTF-8 by itself.
func pieceBytes(piece json.RawMessage) ([]byte, error) {
	var s string
	if json.Unmarshal(piece, &s) == nil {
		return []byte(s), nil
	}
	var bytes []int
	if err := json.Unmarshal(piece, &bytes); err != nil {
		return nil, fmt.Errorf("/tokenize: a piece that is neither text nor bytes: %w", err)
	}
	out := make([]byte, len(bytes))
	for i, c := range bytes {
		out[i] = byte(c)
	}
	return out, nil
}

// joinCharacters gives a character that several tokens share to the last of
// them.
func joinCharacters(raw [][]byte) []string {
	out := make([]string, len(raw))
	var open []byte
	for i, piece := range raw {
		open = append(open, piece...)
		whole := len(open)
		for k := 1; k <= min(utf8.UTFMax, len(open)); k++ {
			if tail := open[len(open)-k:]; utf8.RuneStart(tail[0]) {
				if !utf8.FullRune(tail) {
					whole = len(open) - k
				}
				break
			}
		}
		out[i] = strings.ToValidUTF8(string(open[:whole]), "\uFFFD")
		open = open[whole:]
	}
	return out
}

type timings struct {
	CacheN int `json:"cache_n"`
}

// firstTokens is how many tokens a request that is timed asks for: more than
// one, since the first may be only part of a character and carry no content.
const firstTokens = 4

// chat streams the first tokens of the answer to a user's message and returns
// the time to the first that has content, or, where none has, to the end. A
// slot below 0 leaves the choice to whoever answers.
func (b *backend) chat(ctx context.Context, text string, slot int) (time.Duration, timings, error) {
	body := map[string]any{"messages": message(text), "max_tokens": firstTokens, "temperature": 0, "stream": true, "cache_prompt": true}
	if slot >= 0 {
		body["id_slot"] = slot
	}
	start := time.Now()
	res, err := b.do(ctx, http.MethodPost, "/v1/chat/completions", body)
	if err != nil {
		return 0, timings{}, err
	}
	defer res.Body.Close()
	var (
		ttft time.Duration
		last timings
		done bool
	)
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if string(data) == "[DONE]" {
			done = true
			continue
		}
		content, t, err := readEvent(data)
		if err != nil {
			return 0, last, fmt.Errorf("%s: %w", b.url, err)
		}
		if content && ttft == 0 {
			ttft = time.Since(start)
		}
		if t != nil {
			last = *t
		}
	}
	if err := lines.Err(); err != nil {
		return 0, last, err
	}
	if !done {
		return 0, last, fmt.Errorf("%s: the stream ended before its [DONE]", b.url)
	}
	if ttft == 0 {
		ttft = time.Since(start)
	}
	return ttft, last, nil
}

// readEvent tells whether an event of a streamed answer has content, and the timings where
// it has any. An event that is an error is one.
func readEvent(data []byte) (content bool, t *timings, err error) {
	var event struct {
		Choices []struct {
			Delta struct {
				Content   string `json:"content"`
				Reasoning string `json:"reasoning_content"`
			} `json:"delta"`
		} `json:"choices"`
		Timings *timings        `json:"timings"`
		Error   json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return false, nil, fmt.Errorf("an event that is no JSON: %w", err)
	}
	if event.Error != nil {
		return false, nil, fmt.Errorf("%.*s", maxFault, event.Error)
	}
	content = len(event.Choices) > 0 && event.Choices[0].Delta.Content+event.Choices[0].Delta.Reasoning != ""
	return content, event.Timings, nil
}

// completion is what a greedy completion says.
type completion struct {
	text          string
	tokens        []int32
	distributions []distribution
	timings       timings
}

// probabilities is how many of the likeliest tokens are compared.
const probabilities = 1000

// complete answers a prompt greedily in the slot, with the distribution at each
// position: that of the full softmax, since post_sampling_probs is off.
func (b *backend) complete(ctx context.Context, prompt []int32, slot, n, nProbs int) (*completion, error) {
	var out struct {
		Content       string  `json:"content"`
		Timings       timings `json:"timings"`
		Tokens        []int32 `json:"tokens"`
		Probabilities []struct {
			ID  int32 `json:"id"`
			Top []struct {
				ID      int32    `json:"id"`
				Logprob *float64 `json:"logprob"`
			} `json:"top_logprobs"`
		} `json:"completion_probabilities"`
	}
	err := b.call(ctx, http.MethodPost, "/completion", map[string]any{
		"prompt": prompt, "id_slot": slot, "cache_prompt": true, "n_predict": n, "n_probs": nProbs,
		"post_sampling_probs": false, "temperature": 0, "return_tokens": true,
	}, &out)
	if err != nil {
		return nil, err
	}
	c := &completion{text: out.Content, tokens: out.Tokens, timings: out.Timings}
	for _, p := range out.Probabilities {
		var d distribution
		for _, t := range p.Top {
			if t.Logprob == nil { // -inf has no JSON number
				continue
			}
			d.tokens = append(d.tokens, t.ID)
			d.logprobs = append(d.logprobs, *t.Logprob)
		}
		c.distributions = append(c.distributions, d)
	}
	if nProbs > 0 {
		c.tokens = c.tokens[:0]
		for _, p := range out.Probabilities {
			c.tokens = append(c.tokens, p.ID)
		}
		if len(c.tokens) == 0 {
			return nil, errors.New("/completion gave no probabilities; does the backend know n_probs?")
		}
	}
	return c, nil
}

// follow is the distribution at each position of an answer that is given, behind a
// prompt whose KV the slot holds.
func (b *backend) follow(ctx context.Context, prompt, answer []int32, slot int) ([]distribution, error) {
	prompt = slices.Clone(prompt)
	var out []distribution
	for _, token := range answer {
		c, err := b.complete(ctx, prompt, slot, 1, probabilities)
		if err != nil {
			return nil, err
		}
		if err := continued(c.timings, len(prompt)); err != nil {
			return nil, err
		}
		out = append(out, c.distributions[0])
		prompt = append(prompt, token)
	}
	return out, nil
}
