package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestTheServersStreamsTellWhetherTheyHaveBegun, those that answer an empty prompt apart, and
// however little of the last event is asked for.
func TestTheServersStreamsTellWhetherTheyHaveBegun(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{}), Context: 1024, Slots: 1})
	f := func(path, members string, want bool) {
		t.Helper()
		status, got := ask(t, http.MethodPost, b.URL+path, `{"stream":true,`+members+`}`)
		switch status {
		case http.StatusOK:
		case http.StatusNotFound:
			t.Logf("this llama-server has no %s", path)
			return
		default:
			t.Fatalf("%s, %s: status %d, %s", path, members, status, got)
		}
		for _, part := range []string{got[:strings.LastIndex(got, "data: ")], got} {
			if began := answered(eventStream, part, errClientGone).Began; began != want {
				t.Errorf("%s, %s: broken off after %.2000q, it has begun: %t; expected %t", path, members, part, began, want)
			}
		}
		if o := answered(eventStream, got, nil); o.Failed && (want || o.PromptN >= 0) {
			t.Errorf("%s, %s: it is taken to have failed: %.2000s", path, members, got)
		}
	}
	const text, empty, words = `"prompt":"Once upon a time"`, `"prompt":""`, `"n_predict":4,"max_tokens":4,"max_output_tokens":4,"ignore_eos":true,`
	const messages = `"messages":[{"role":"user","content":"Once upon a time"}]`
	f("/completion", words+text, true)
	f("/completion", words+`"return_progress":true,`+text, true)
	f("/completion", words+`"response_fields":["content"],`+text, true)
	f("/v1/completions", words+text, true)
	f("/v1/chat/completions", words+messages, true)
	f("/v1/chat/completions", words+`"return_progress":true,`+messages, true)
	f("/v1/messages", words+messages, true)
	f("/v1/responses", words+`"input":"Once upon a time"`, true)
	f("/completion", words+empty, false)
	f("/completion", words+`"response_fields":["content","generation_settings/stop"],"stop":["data: {"],`+empty, false)
	f("/v1/completions", words+`"stop":["data: {"],`+empty, false)
}
