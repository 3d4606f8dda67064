package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/semsharekv/semsharekv/bridge"
)

// errNoInfill is returned where the tokens around the parts of a
// fill-in-the-middle prompt are not known.
var errNoInfill = errors.New("the model file does not name its fill-in-the-middle tokens")

// errNoToken is returned for token ids that the model does not have.
var errNoToken = errors.New("the model has fewer tokens")

// tokenizer asks the backend for the ids that it will itself see.
type tokenizer struct {
	backend *bridge.Backend
	model   *bridge.Model // nil where no GGUF can be read
	context int           // tokens of one slot, 0 unknown
}

// tokens returns the ids of a prompt. If they were found in parts (parts.go), exactTokens are
// those of the whole, still under way. The backend is asked with the client's Authorization:
// it returns an error for a client that it would refuse (see keyRefused).
func (lv *live) tokens(ctx context.Context, auth string, p *Prompt) ([]int32, *exactTokens, error) {
	text := p.Text
	switch p.Kind {
	case PromptChat:
		var err error
		if text, err = lv.tokenizer.backend.ApplyTemplate(ctx, auth, p.Chat); err != nil {
			return nil, nil, err
		}
	case PromptText:
	default:
		tokens, err := lv.tokenizer.ids(ctx, auth, p)
		return tokens, nil, err
	}
	if lv.parts.worth && !lv.parts.wrong.Load() && lv.agent() {
		return lv.tokenizeInParts(ctx, auth, text)
	}
	tokens, err := lv.tokenizer.whole(ctx, auth, text)
	return tokens, nil, err
}

// whole are the ids of a prompt that is a text.
func (t tokenizer) whole(ctx context.Context, auth, text string) ([]int32, error) {
	return t.backend.Tokenize(ctx, auth, text, true, true)
}

// ids are those of a prompt that is not one text.
func (t tokenizer) ids(ctx context.Context, auth string, p *Prompt) ([]int32, error) {
	if p.Kind == PromptInfill {
		return t.infill(ctx, auth, p.Infill)
	}
	return t.mixed(ctx, auth, p.Parts)
}

// mixed joins the parts; only a string in front gets what the model puts before
// every prompt (llama-server: tokenize_mixed).
func (t tokenizer) mixed(ctx context.Context, auth string, parts []PromptPart) ([]int32, error) {
	out, err := []int32(nil), t.admitted(ctx, auth)
	if err != nil {
		return nil, err
	}
	for i, part := range parts {
		ids := part.Tokens
		if ids == nil {
			ids, err = t.backend.Tokenize(ctx, auth, part.Text, i == 0, true)
		} else {
			err = t.has(ids)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, ids...)
	}
	return out, nil
}

// vocabulary is how many token ids there are, 0 where nobody knows.
func (t tokenizer) vocabulary() int {
	if t.model == nil {
		return 0
	}
	return t.model.Tokens()
}

// has returns an error where the model does not have all of a client's token ids. The backend
// refuses such a prompt, and would refuse to fill it in.
func (t tokenizer) has(ids []int32) error {
	if n := t.vocabulary(); n > 0 && len(ids) > 0 && int(slices.Max(ids)) >= n {
		return errNoToken
	}
	return nil
}

// untested reports whether the prompt has token ids of the client's of which nobody knows
// whether the model has them: that the backend refuses them says nothing of filling.
func (d *decision) untested() bool {
	return d.req.Prompt.Kind == PromptParts && d.lv.tokenizer.vocabulary() == 0
}

// admitted asks a backend with keys whether it takes the client's, for prompts of which
// it need not be asked anything.
func (t tokenizer) admitted(ctx context.Context, auth string) error {
	if !t.backend.Keyed() {
		return nil
	}
	_, err := t.backend.Tokenize(ctx, auth, "", false, false)
	return err
}

// turnsAway reports whether the backend does not take a client's key, so that nothing need be
// done for it.
func (sh *Sharer) turnsAway(ctx context.Context, auth string) bool {
	return sh.shares() && keyRefused(tokenizer{backend: sh.backend}.admitted(ctx, auth))
}

// keyRefused reports whether the backend does not take the client's key.
func keyRefused(err error) bool {
	var b *bridge.BackendError
	return errors.As(err, &b) && (b.Status == http.StatusUnauthorized || b.Status == http.StatusForbidden)
}
