package proxy

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/semsharekv/semsharekv/bridge"
)

// A fast backend, a GPU's, takes longer to tokenise a long prompt than to fill a slot with it,
// and does it on one core. So it is asked for the tokens of parts of the text side by side, and
// at the same time for those of the whole: by the parts' the slot is filled, and before the
// request goes on they are compared with the whole's, which the agent keeps for it.

const (
	// partBytes is how much text makes it worth another part, some thousand tokens.
	partBytes = 4096
	maxParts  = 8
	// exactTimeout bounds the tokenising of a whole text.
	exactTimeout = 10 * time.Second
)

// errOtherTokens says that a text's tokens are others than those of its parts.
var errOtherTokens = errors.New("in parts the prompt has other tokens than as a whole")

// parts tells whether texts are tokenised in parts.
type parts struct {
	worth bool        // the backend is fast, and words do not reach across blanks
	wrong atomic.Bool // parts had other tokens than the whole
}

// exactTokens are those of a whole text, under way while those of its parts are used already.
type exactTokens struct {
	done   chan struct{}
	tokens []int32
	err    error
}

// wait returns them once the backend has told them.
func (e *exactTokens) wait(ctx context.Context) ([]int32, error) {
	select {
	case <-e.done:
		return e.tokens, e.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// tokenizeInParts finds out the text's tokens in parts, the whole's under way. Without parts
// that it can be cut into, it returns those of the whole alone.
func (lv *live) tokenizeInParts(ctx context.Context, auth, text string) ([]int32, *exactTokens, error) {
	texts := cutAtBlanks(text, min(maxParts, len(text)/partBytes))
	if len(texts) == 1 {
		tokens, err := lv.tokenizer.whole(ctx, auth, text)
		return tokens, nil, err
	}
	t := tokenizer{backend: lv.tokenizer.backend.Once()}
	exact := &exactTokens{done: make(chan struct{})}
	whole, cancel := context.WithTimeout(lv.ctx, exactTimeout)
	go func() {
		defer close(exact.done)
		defer cancel()
		exact.tokens, exact.err = t.whole(whole, auth, text)
	}()
	tokens, err := tokenizeEach(ctx, t.backend, auth, texts)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return tokens, exact, nil
}

// tokenizeEach joins the tokens of all texts, in front of the first of which stands what the
// model puts before every prompt.
func tokenizeEach(ctx context.Context, backend *bridge.Backend, auth string, texts []string) ([]int32, error) {
	out := make([][]int32, len(texts))
	g, ctx := errgroup.WithContext(ctx)
	for i, text := range texts {
		g.Go(func() (err error) {
			out[i], err = backend.Tokenize(ctx, auth, text, i == 0, true)
			return err
		})
	}
	err := g.Wait()
	return slices.Concat(out...), err
}

// cutAtBlanks cuts a text into n parts, about as long, before blanks between a word and a
// letter, where byte pair encodings begin a new word too; into fewer where there are none.
func cutAtBlanks(text string, n int) []string {
	var out []string
	from := 0
	for i := 1; i < n; i++ {
		if at := blankFrom(text, len(text)*i/n, len(text)*(i+1)/n); at > from {
			out = append(out, text[from:at])
			from = at
		}
	}
	return append(out, text[from:])
}

// blankFrom is where in [from, to) a blank stands between a word and a letter, or -1.
func blankFrom(text string, from, to int) int {
	for i := max(from, 1); i+1 < min(to, len(text)); i++ {
		if text[i] == ' ' && isWord(text[i-1]) && isLetter(text[i+1]) {
			return i
		}
	}
	return -1
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isWord(c byte) bool { return isLetter(c) || '0' <= c && c <= '9' || c == '.' || c == ',' }

// confirm waits for the tokens of the whole prompt, and returns an error where they are others
// than those that the slot was filled by. Where the backend did not tell them, its cache_n will.
func (d *decision) confirm(ctx context.Context) error {
	if d.exact == nil {
		return nil
	}
	tokens, err := d.exact.wait(ctx)
	if err != nil || slices.Equal(tokens, d.tokens) {
		return nil
	}
	if d.lv.parts.wrong.CompareAndSwap(false, true) {
		d.sh.log.Warn().Str("id", d.req.ID).Msg("a prompt has other tokens in parts than as a whole: from now on prompts are tokenised as a whole, which takes longer")
	}
	return errOtherTokens
}
