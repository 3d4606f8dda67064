package proxy

import (
	"bytes"

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
	predictedN      int
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
	if o, ok := t.last(`"timings":{`); ok && o.Get("cache_n").Exists() {
		t.fromTimings = true
		t.cacheN, t.promptN = count(o.Get("cache_n")), count(o.Get("prompt_n"))
		t.promptMS = o.Get("prompt_ms").Float()
		t.predictedN = int(o.Get("predicted_n").Int())
	}
	if t.fromTimings {
		return
	}
	o, ok := t.last(`"usage":{`)
	if !ok {
		return
	}
	cached, prompt, whole := o.Get("prompt_tokens_details.cached_tokens"), o.Get("prompt_tokens"), true
	if !cached.Exists() {
		cached, prompt = o.Get("input_tokens_details.cached_tokens"), o.Get("input_tokens")
	}
	if !cached.Exists() { // Anthropic: input_tokens are those not cached
		cached, whole = o.Get("cache_read_input_tokens"), false
	}
	if !cached.Exists() {
		return
	}
	t.cacheN, t.promptN = count(cached), count(prompt)
	t.predictedN = int(o.Get("completion_tokens").Int() + o.Get("output_tokens").Int())
	if whole && t.promptN >= 0 {
		t.promptN -= t.cacheN
	}
}

// last returns the last object that stands under key in the window. One that
// is cut off by the window's end is left for the next scan.
func (t *tally) last(key string) (gjson.Result, bool) {
	i := bytes.LastIndex(t.window, []byte(key))
	if i < 0 {
		return gjson.Result{}, false
	}
	o := gjson.ParseBytes(t.window[i+len(key)-1:])
	return o, len(o.Raw) > 1 && o.Raw[len(o.Raw)-1] == '}'
}

func count(r gjson.Result) int {
	if r.Type != gjson.Number || r.Num < 0 {
		return -1
	}
	return int(r.Int())
}
