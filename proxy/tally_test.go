package proxy

import (
	"net/http"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	f := func(answer string, cacheN, promptN, predictedN int) {
		t.Helper()
		for _, step := range []int{1, 7, len(answer)} {
			y := newTally()
			for i := 0; i < len(answer); i += step {
				y.add([]byte(answer[i:min(i+step, len(answer))]))
			}
			y.scan()
			if y.cacheN != cacheN || y.promptN != promptN || y.predictedN != predictedN {
				t.Errorf("%.200s in steps of %d: cache_n %d, prompt_n %d, predicted_n %d; expected %d, %d and %d",
					answer, step, y.cacheN, y.promptN, y.predictedN, cacheN, promptN, predictedN)
			}
		}
	}
	const timings = `"timings":{"cache_n":90,"prompt_n":10,"prompt_ms":1.5,"predicted_n":7,"x":[{}]}`
	long := strings.Repeat("x", 3*tallyWindow)
	f(`{"content":"a",`+timings+`}`, 90, 10, 7)
	f(`{"content":"`+long+`",`+timings+`}`, 90, 10, 7)
	f(`{`+timings+`,"completion_probabilities":"`+long+`"}`, 90, 10, 7)
	f("data: {\"usage\":{\"prompt_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":1}},"+timings+"}\n\ndata: [DONE]\n\n", 90, 10, 7)
	f(`{"usage":{"prompt_tokens":100,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens":5}}`, 60, 40, 5)
	f(`{"usage":{"input_tokens":100,"input_tokens_details":{"cached_tokens":60},"output_tokens":4}}`, 60, 40, 4)
	f(`{"message":{"usage":{"cache_read_input_tokens":60,"input_tokens":40}}} {"usage":{"output_tokens":3}}`, 60, 40, 3)
	f(`{"content":"\"timings\":{\"cache_n\":1}"}`, -1, -1, 0)
	f(`{"timings":{"prompt_n":5}}`, -1, -1, 0)
	f(``, -1, -1, 0)
	f(`{"timings":{"cache_n":9`, -1, -1, 0)
}

// answered is the outcome of an exchange with that answer.
func answered(contentType, text string, err error) outcome {
	x := &exchange{status: http.StatusOK, err: err, tally: newTally(), answer: new(answer), bytesOut: int64(len(text))}
	x.answer.head.SetContentType(contentType)
	x.tally.add([]byte(text))
	return x.outcome()
}

const (
	eventStream = "text/event-stream"
	document    = "application/json; charset=utf-8"
	// hidden is the last event of an answer by /completion to an empty prompt, as far as the
	// client wants to see it.
	hidden = `data: {"content":"","stop":["data: {"]}` + "\n\n"
)

// TestAnAnswerHasBegunOnceThePromptIsDone, which neither the answer to an empty prompt shows nor
// what the client wrote into the request.
func TestAnAnswerHasBegunOnceThePromptIsDone(t *testing.T) {
	f := func(answer string, want bool) {
		t.Helper()
		if got := answered(eventStream, answer, errClientGone).Began; got != want {
			t.Errorf("%.300s: begun is %v", answer, got)
		}
	}
	progress := func(processed string) string {
		return `data: {"choices":[{"finish_reason":null,"delta":{"content":null}}],"prompt_progress":{"cache":0,"processed":` + processed + `,"time_ms":9,"total":90}}` + "\n\n"
	}
	const token = `data: {"choices":[{"finish_reason":null,"delta":{"content":"a \"error\":{"}}]}` + "\n\n"
	const last = `data: {"choices":[{"finish_reason":"stop","delta":{}}],"timings":{"cache_n":0,"prompt_n":0}}` + "\n\n"
	long := strings.Repeat("x", 3*tallyWindow)
	f("", false)
	f(":\n\n", false)
	f(progress("0"), false)
	f(progress("0")+progress("64")+":\n\n", false)
	f(progress("64")+progress("90"), true)
	f(progress("90")+token, true)
	f(":\n\n"+token, true)
	f(token[:len(token)-5], false)
	f(token+`data: {"content":"`+long, true)
	f(token+last, true)
	f(last, false)
	f(last+"data: [DONE]\n\n", false)
	f(hidden, false)
	f(`data: {"prompt_progress":{"processed":0,"total":0}}`+"\n\n", false)
	f(`data: {"index":0,"content":"a","stop":false}`+"\n\n", true)
	f(`data: {"content":"","generation_settings":{"stop":["`+strings.Repeat("data: {", tallyWindow)+`"]},"stop":true}`+"\n\n", false)
	f("event: response.created\n"+`data: {"type":"response.created"}`+"\n\n", false)
	f("event: response.output_text.delta\n"+`data: {"type":"response.output_text.delta","delta":"a"}`+"\n\n", true)
	f("event: message_delta\n"+`data: {"type":"message_delta","delta":{}}`+"\n\n", false)
	f("event: content_block_delta\n"+`data: {"type":"content_block_delta"}`+"\n\n", true)
	f(`data: {"error":{"code":500}}`+"\n\n", false)
	f(token+`data: {"error":{"code":500}}`+"\n\n"+long, false)
	f(token+`error: {"code":500}`+"\n\n", false)
}

// TestAnAnswerWithAnErrorOrWithNothingFailed, whatever its status.
func TestAnAnswerWithAnErrorOrWithNothingFailed(t *testing.T) {
	f := func(contentType, answer string, want bool) {
		t.Helper()
		if got := answered(contentType, answer, nil).Failed; got != want {
			t.Errorf("%s, %.300s: failed is %v", contentType, answer, got)
		}
	}
	const token = `data: {"index":0,"content":"a","stop":false}` + "\n\n"
	const counted = `"timings":{"cache_n":0,"prompt_n":9}}`
	f(document, `{"content":"a",`+counted, false)
	f(document, `{"content":"a"}`, false) // the client asked for that alone
	f(document, `{"content":[{"type":"tool_use","input":{"error":{"code":1}}}],"usage":{"cache_read_input_tokens":5,"input_tokens":4}}`, false)
	f(document, "", true)
	f(eventStream, token, false)
	f(eventStream, token+`data: {"content":"",`+counted+"\n\n", false)
	f(eventStream, `data: {"content":"",`+counted+"\n\n", false)
	f(eventStream, ":\n\n", true)
	f(eventStream, "", true)
	f(eventStream, hidden, true)
	f(eventStream, `error: {"code":400,"message":"`+strings.Repeat("x", 3*tallyWindow)+`"}`+"\n\n", true)
	f(eventStream, token+`data: {"error":{"code":500}}`+"\n\n", true)
}
