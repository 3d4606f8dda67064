package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestInfillIsWhatTheServerMakesOfIt: however long the parts are, and with special tokens in
// them.
func TestInfillIsWhatTheServerMakesOfIt(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Model: infillModel(t), Context: 2 * 2400, Slots: 2}, nil)
	f := func(name, prefix, prompt, suffix string, extra ...string) {
		t.Helper()
		body := map[string]any{"input_prefix": prefix, "input_suffix": suffix, "prompt": prompt, "n_predict": 1}
		files := []map[string]string{}
		for _, text := range extra {
			files = append(files, map[string]string{"filename": "f", "text": text})
		}
		body["input_extra"] = files
		b, _ := json.Marshal(body)
		p, off := readPrompt(EndpointInfill, gjson.ParseBytes(b))
		tokens, err := s.live().tokenizer.ids(t.Context(), "", &p)
		if off != "" || err != nil {
			t.Fatalf("%s: %q, %v", name, off, err)
		}
		whole, _ := json.Marshal(map[string]any{"tokens": tokens})
		_, mine := ask(t, http.MethodPost, s.backend.URL+"/detokenize", string(whole))
		_, theirs := ask(t, http.MethodPost, s.backend.URL+"/infill", string(b))
		if got, want := gjson.Get(mine, "content").String(), gjson.Get(theirs, "prompt").String(); got != want || got == "" {
			t.Errorf("%s: the sidecar makes %d bytes of it,\n%.200q\nthe server %d\n%.200q", name, len(got), got, len(want), want)
		}
		if n := gjson.Get(theirs, "tokens_evaluated").Int(); n != int64(len(tokens)) {
			t.Errorf("%s: the sidecar makes %d tokens of it, the server %d", name, len(tokens), n)
		}
	}
	long := strings.Repeat("0123456789", 400)
	f("short", "func ", "", "}")
	f("special tokens", "a<|im_start|>", "b<|im_start|>", "c<|im_start|>", "d<|im_start|>")
	f("more than the parts may take", long, "x", long)
	f("extra that fits", "func ", "", "}", long[:100], long[:200])
	f("extra that is cut", "func ", "", "}", long[:500], long[:700])
}

// TestInfillThatIsOtherwiseThanThoughtLeavesSharingOn: the server was started with other
// settings than the sidecar can know.
func TestInfillThatIsOtherwiseThanThoughtLeavesSharingOn(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Model: infillModel(t), Context: 2 * 2400, Slots: 2}, nil)
	g := &request{Prompt: Prompt{Kind: PromptInfill}}
	for range maxStrikes {
		d := &decision{State: StateShared, expect: 100, sh: s.server.sharer, lv: s.live(), book: s.live().slots, req: g, slot: s.live().slots.all[0]}
		if d.verify(outcome{Status: http.StatusOK, CacheN: 50, PromptN: 60}) {
			t.Error("a prompt of which the server found half as much as was injected is taken for verified")
		}
	}
	if err := s.server.sharer.Ready(); err != nil {
		t.Errorf("sharing is off: %v", err)
	}
}

// infillModel is a tiny model with tokens for filling in: bytes that no text has.
func infillModel(t *testing.T) string {
	t.Helper()
	extra := map[string]any{}
	for i, name := range []string{"pre", "suf", "mid", "rep", "sep"} {
		extra[fmt.Sprintf("tokenizer.ggml.fim_%s_token_id", name)] = uint32(1 + i)
	}
	return tinymodel.Make(t, tinymodel.Options{Context: 4096, Extra: extra})
}
