package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/tidwall/gjson"
)

// ApplyTemplate renders an OpenAI chat body into the prompt that the server
// would make of it. auth is the client's Authorization, or "": the sidecar's key does
// not stand in for it, so that nothing is done for whom the backend would refuse.
func (b *Backend) ApplyTemplate(ctx context.Context, auth string, chat json.RawMessage) (string, error) {
	reply, err := b.call(ctx, http.MethodPost, "/apply-template", auth, chat)
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
