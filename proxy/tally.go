package proxy

import (
	"bytes"
	"iter"
	"strings"

	"github.com/tidwall/gjson"
)

const (
	tallyWindow = 64 << 10 // bytes looked at in one go
	tallyKeep   = 4 << 10  // longer than any timings or usage object
)

// tally reads the backend's own token counts out of an answer while it
// passes, whatever its form: one JSON document or a stream of events. Later
// counts win; `timings` beats `usage`. Text that the model wrote cannot pass
// for a count, as quotes inside JSON strings are escaped.
type tally struct {
	window          []byte
	fromTimings     bool
	cacheN, promptN int // -1 unknown
	promptMS        float64
	predictedN      int // tokens of the answer so far, 0 unknown
}

func newTally() *tally { return &tally{cacheN: -1, promptN: -1} }

func (t *tally) add(p []byte) {
	for len(p) > 0 {
		n := min(len(p), tallyWindow-len(t.window))
		t.window = append(t.window, p[:n]...)
		p = p[n:]
		if len(t.window) == tallyWindow {
			t.scan()
			t.window = append(t.window[:0], t.window[tallyWindow-tallyKeep:]...)
		}
	}
}

// scan takes the counts found in the window; add and the end of the answer
// call it.
func (t *tally) scan() {
	for o := range t.all("timings") {
		if o.Get("cache_n").Exists() {
			t.fromTimings = true
			t.cacheN, t.promptN = count(o.Get("cache_n")), count(o.Get("prompt_n"))
			t.promptMS = o.Get("prompt_ms").Float()
			t.predictedN = max(0, count(o.Get("predicted_n")))
			break
		}
	}
	if t.fromTimings {
		return
	}
	t.scanUsage()
}

// began reports whether the answer is a stream that has come to the model's words. Before them
// may stand events that say how far the prompt is, and comments that keep the connection open.
func (t *tally) began() bool {
	if bytes.Contains(t.window, []byte(`"error":{`)) {
		return false
	}
	for o := range t.all("prompt_progress") {
		return o.Get("total").Exists() && o.Get("processed").Int() >= o.Get("total").Int()
	}
	return bytes.Contains(t.window, []byte("data: {"))
}

// scanUsage takes the answer's length from the last usage object, and the prompt's
// from the last that has it: Anthropic's stream tells them apart.
func (t *tally) scanUsage() {
	last := true
	for o := range t.all("usage") {
		if last {
			t.predictedN = int(max(o.Get("completion_tokens").Int(), o.Get("output_tokens").Int(), 0))
			last = false
		}
		if t.usage(o) {
			return
		}
	}
}

// usage takes the counts of one of the three APIs' usage objects.
func (t *tally) usage(o gjson.Result) bool {
	cached, prompt, whole := o.Get("prompt_tokens_details.cached_tokens"), o.Get("prompt_tokens"), true
	if !cached.Exists() {
		cached, prompt = o.Get("input_tokens_details.cached_tokens"), o.Get("input_tokens")
	}
	if !cached.Exists() { // Anthropic: input_tokens are those not cached
		cached, whole = o.Get("cache_read_input_tokens"), false
	}
	if !cached.Exists() {
		return false
	}
	t.cacheN, t.promptN = count(cached), count(prompt)
	if whole && t.promptN >= 0 {
		t.promptN -= t.cacheN
	}
	return true
}

// all yields the objects that stand under key in the window, the last first.
// One that is cut off by the window's end is left for the next scan.
func (t *tally) all(key string) iter.Seq[gjson.Result] {
	return func(yield func(gjson.Result) bool) {
		mark := []byte(`"` + key + `":{`)
		for end := len(t.window); ; {
			i := bytes.LastIndex(t.window[:end], mark)
			if i < 0 {
				return
			}
			end = i
			// gjson finds the end of a member, not of a document: make it one.
			doc := append([]byte("{"), t.window[i:min(len(t.window), i+tallyKeep)]...)
			if o := gjson.GetBytes(doc, key); strings.HasSuffix(o.Raw, "}") && !yield(o) {
				return
			}
		}
	}
}

func count(r gjson.Result) int {
	if r.Type != gjson.Number || r.Num < 0 {
		return -1
	}
	return int(r.Int())
}
