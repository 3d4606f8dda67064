package proxy

import (
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

// TestAnAnswerHasBegunOnceThePromptIsDone.
func TestAnAnswerHasBegunOnceThePromptIsDone(t *testing.T) {
	f := func(answer string, want bool) {
		t.Helper()
		y := newTally()
		y.add([]byte(answer))
		if y.began() != want {
			t.Errorf("%s: begun is %v", answer, !want)
		}
	}
	progress := func(processed string) string {
		return `data: {"choices":[{"delta":{"content":null}}],"prompt_progress":{"cache":0,"processed":` + processed + `,"time_ms":9,"total":90}}` + "\n\n"
	}
	const token = `data: {"choices":[{"delta":{"content":"a \"error\":{"}}]}` + "\n\n"
	f("", false)
	f(":\n\n", false)
	f(progress("0"), false)
	f(progress("0")+progress("64")+":\n\n", false)
	f(progress("64")+progress("90"), true)
	f(progress("90")+token, true)
	f("event: message_start\n"+token, true)
	f(":\n\n"+token, true)
	f(`data: {"error":{"code":500}}`+"\n\n", false)
}
