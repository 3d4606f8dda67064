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
// for a count, as quotes inside JSON strings are escaped; only what it has a tool
// be given in an unstreamed answer of /v1/messages, which is an object, can.
type tally struct {
	window          []byte // begins with a line break, as does what is looked for at the start of a line
	begun, failed   bool   // see begins and fails
	fromTimings     bool
	cacheN, promptN int // -1 unknown
	promptMS        float64
	predictedN      int // tokens of the answer so far, 0 unknown
}

func newTally() *tally { return &tally{window: []byte("\n"), cacheN: -1, promptN: -1} }

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

// scan takes what is found in the window; add and the end of the answer call it.
func (t *tally) scan() {
	t.begun = t.begun || t.begins()
	t.failed = t.failed || t.fails()
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

// begins reports whether the answer is a stream with an event that only a prompt that is done
// brings: one of the model's words, or one that says so. Not the last event: that comes for an
// empty prompt too, of which the slot takes nothing. Text cannot pass for an event, as line
// breaks inside JSON strings are escaped.
func (t *tally) begins() bool {
	for rest := t.window; ; {
		_, event, _ := bytes.Cut(rest, []byte("\ndata: "))
		end := bytes.IndexByte(event, '\n')
		if end < 0 {
			return false
		}
		if tells(event[:end]) {
			return true
		}
		rest = event[end:]
	}
}

// tells reports whether an event tells that the prompt is done. Clients choose what the last
// event of /completion has (response_fields), but not what others have.
func tells(event []byte) bool {
	o := gjson.ParseBytes(event)
	if p := o.Get("prompt_progress"); p.Exists() {
		total := p.Get("total").Int()
		return total > 0 && p.Get("processed").Int() >= total
	}
	kind := o.Get("type").Str // of /v1/responses and /v1/messages
	finish := o.Get("choices.0.finish_reason")
	return o.Get("stop").Type == gjson.False || finish.Exists() && finish.Type == gjson.Null ||
		strings.HasSuffix(kind, ".delta") || kind == "content_block_delta"
}

// fails reports whether the answer has an error in one of the forms that it has once a stream
// has begun. The second is that of servers from before October 2025.
func (t *tally) fails() bool {
	return bytes.Contains(t.window, []byte(`"error":{`)) || bytes.Contains(t.window, []byte("\nerror: {"))
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
