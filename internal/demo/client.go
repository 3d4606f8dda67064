package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// answerTokens is enough to see what the answer says.
const answerTokens = 40

// request is one prompt to a server.
type request struct {
	url, tenant, prompt string
	cold                bool // forbid the server to use what it has cached
}

// reply is a server's answer.
type reply struct {
	text   string
	ttft   time.Duration
	tokens int    // of the prompt
	did    string // X-SemShareKV
}

// step sends a request and shows how long it takes.
func step(ctx context.Context, what string, r request) (reply, error) {
	fmt.Printf("      %-38s ", what)
	done := make(chan struct{})
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		for {
			select {
			case <-done:
				return
			case <-time.After(3 * time.Second):
				fmt.Print(".")
			}
		}
	}()
	a, err := r.send(ctx)
	close(done)
	<-idle
	if err != nil {
		fmt.Println(" failed")
		return a, err
	}
	fmt.Printf(" first token after %s   %s\n", show(a.ttft), a.did)
	return a, nil
}

// send asks for a streamed answer, greedy, as any OpenAI client would.
func (r request) send(ctx context.Context) (reply, error) {
	body := map[string]any{
		"messages":       []map[string]string{{"role": "user", "content": r.prompt}},
		"max_tokens":     answerTokens,
		"temperature":    0,
		"stream":         true,
		"stream_options": map[string]bool{"include_usage": true},
	}
	if r.cold {
		body["cache_prompt"] = false
	}
	text, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/chat/completions", bytes.NewReader(text))
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	if r.tenant != "" {
		req.Header.Set(tenantHeader, r.tenant)
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		why, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return reply{}, fmt.Errorf("%s: %s", resp.Status, why)
	}
	a := reply{did: resp.Header.Get("X-SemShareKV")}
	return a, a.read(resp.Body, began)
}

// read takes the events of a stream.
func (a *reply) read(body io.Reader, began time.Time) error {
	var text strings.Builder
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var event struct {
			Choices []struct{ Delta struct{ Content string } }
			Usage   struct {
				PromptTokens int `json:"prompt_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return fmt.Errorf("event %q: %w", data, err)
		}
		if event.Usage.PromptTokens > 0 {
			a.tokens = event.Usage.PromptTokens
		}
		for _, c := range event.Choices {
			if c.Delta.Content != "" && a.ttft == 0 {
				a.ttft = time.Since(began)
			}
			text.WriteString(c.Delta.Content)
		}
	}
	a.text = text.String()
	if err := lines.Err(); err != nil {
		return err
	}
	if a.ttft == 0 {
		return fmt.Errorf("the answer is empty")
	}
	return nil
}
