package proxy

import (
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

func TestReadPrompt(t *testing.T) {
	f := func(e Endpoint, body string, want Prompt) {
		t.Helper()
		got, off := readPrompt(e, gjson.Parse(body))
		if off != "" || !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s: got %+v, %q; expected %+v", e, body, got, off, want)
		}
	}
	text := Prompt{Kind: PromptText, Text: "a\n☃"}
	ids := Prompt{Kind: PromptParts, Parts: []PromptPart{{Tokens: []int32{1, 2, 3}}}}
	f(EndpointCompletion, `{"prompt":"a\n☃"}`, text)
	f(EndpointCompletion, `{"prompt":["a\n\u2603"]}`, text)
	f(EndpointCompletions, `{"prompt":[1,2,3]}`, ids)
	f(EndpointCompletion, `{"prompt":[[1,2,3]]}`, ids)
	f(EndpointCompletion, `{"prompt":[1,2,"x",3]}`, Prompt{Kind: PromptParts, Parts: []PromptPart{
		{Tokens: []int32{1, 2}}, {Text: "x"}, {Tokens: []int32{3}},
	}})
	chat := `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}]}`
	f(EndpointChat, chat, Prompt{Kind: PromptChat, Chat: []byte(chat)})
	f(EndpointInfill, `{"input_prefix":"p","input_suffix":"s","prompt":"m","input_extra":[{"text":"t","filename":"f"},{"text":"u"}]}`,
		Prompt{Kind: PromptInfill, Infill: Infill{Prefix: "p", Suffix: "s", Prompt: "m", Extra: []InfillFile{{"f", "t"}, {"tmp", "u"}}}})
}

func TestUnreadablePrompts(t *testing.T) {
	f := func(e Endpoint, body, want string) {
		t.Helper()
		if got, off := readPrompt(e, gjson.Parse(body)); off != want {
			t.Errorf("%s %s: got %+v, %q; expected the reason %q", e, body, got, off, want)
		}
	}
	f(EndpointCompletion, `{"prompt":["a","b"]}`, offList)
	f(EndpointCompletion, `{"prompt":[[1],[2]]}`, offList)
	f(EndpointCompletion, `{"prompt":[]}`, offList)
	f(EndpointCompletion, `{"prompt":[["a"]]}`, offList)
	f(EndpointCompletion, `{"prompt":{"prompt_string":"a","multimodal_data":["b"]}}`, offMultimodal)
	f(EndpointCompletion, `{"prompt":[1.5,2]}`, offForm)
	f(EndpointCompletion, `{"prompt":[-1]}`, offForm)
	f(EndpointCompletion, `{"prompt":[1,null]}`, offForm)
	f(EndpointCompletion, `{}`, offForm)
	f(EndpointCompletion, `[1]`, offJSON)
	f(EndpointChat, `{"messages":"x"}`, offForm)
	f(EndpointChat, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]}`, offMultimodal)
	f(EndpointChat, `{"messages":[{"role":"user","content":[{"type":"novel"}]}]}`, offForm)
	f(EndpointResponses, `{"input":[{"role":"user","content":[{"type":"input_image"}]}]}`, offMultimodal)
	f(EndpointResponses, `{"input":"x","previous_response_id":"r"}`, offForm)
	f(EndpointMessages, `{"messages":[{"role":"user","content":[{"type":"image"}]}]}`, offMultimodal)
	f(EndpointMessages, `{"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"x":1.5}}]}]}`, offForm)
	f(EndpointMessages, `{"messages":[{"role":"assistant","content":[{"type":"tool_use","input":{"x":"`+strings.Repeat("x", maxDump)+`"}}]}]}`, offForm)
	f(EndpointInfill, `{"input_prefix":"p"}`, offForm)
	f(EndpointInfill, `{"input_prefix":[1,2],"input_suffix":"s"}`, offForm)
	f(EndpointInfill, `{"input_prefix":"p","input_suffix":["s",3]}`, offForm)
}

func TestUnreadable(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		if got := unreadable([]byte(body)); got != want {
			t.Errorf("%.40s: got %q, expected %q", body, got, want)
		}
	}
	f(`{"a":["[[[","\\\"[{"]}`, "")
	f(strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth), "")
	f(strings.Repeat("[", maxDepth+1)+strings.Repeat("]", maxDepth+1), offDeep)
	f(strings.Repeat(`{"a":`, 8<<20), offDeep)
	f(`"`, offJSON)
	f("{\"a\":\"\xff\"}", offJSON)
	f(`{"a":0`+strings.Repeat(`,"a":[0,0]`, maxMembers-1)+`}`, "")
	f(`{"a":0`+strings.Repeat(`,"a":0`, maxMembers)+`}`, offMembers)
	f("\ufeff{}", offJSON)
}

func TestOffBody(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		if got := offBody(gjson.Parse(body)); got != want {
			t.Errorf("%s: got %q, expected %q", body, got, want)
		}
	}
	f(`{"prompt":"a"}`, "")
	f(`{"n":1,"cache_prompt":true,"id_slot":-1,"lora":[]}`, "")
	f(`{"n":2}`, offSeveral)
	f(`{"id_slot":-1,"id_slot":2}`, offTwice)
	f(`{"prompt":"a","\u0070rompt":"b"}`, offTwice)
	f(`{"messages":[{"content":"a"},{"content":"b","x":{"content":"c"}},{"content":"d"}]}`, "")
	f(`{"messages":[{"content":"a","role":"user","content" : [{"type":"image_url"}]}]}`, offTwice)
	f(`{"input":[{"content":[{"text":"a","x":[{},{}],"t\u0065xt":"b"}]}]}`, offTwice)
	f(`{"a":["a",":","a",":{"],"b":"a"}`, "")
	f(`{"prompt":[0`+strings.Repeat(`,0`, maxValues-1)+`]}`, "")
	f(`{"prompt":[0`+strings.Repeat(`,0`, maxValues)+`]}`, offForm)
	f(`{"n_cmpl":3}`, offSeveral)
	f(`{"cache_prompt":false}`, offNoCache)
	f(`{"id_slot":0}`, offPinned)
}

func TestResponsesBecomeChat(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		got, off := chatFromResponses(gjson.Parse(body))
		if off != "" || got != want {
			t.Errorf("%s:\n got %s %q\nwant %s", body, got, off, want)
		}
	}
	f(`{"model":"m","input":"hi","instructions":"be","max_output_tokens":5,"reasoning":{"effort":"low"}}`,
		`{"model":"m","messages":[{"role":"system","content":"be"},{"role":"user","content":"hi"}],"max_tokens":5,"reasoning_effort":"low"}`)
	f(`{"input":[{"type":"message","role":"user","content":"q"},
		{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},
		{"type":"message","role":"assistant","status":"done","content":[{"type":"output_text","text":"a"}]},
		{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
		{"type":"function_call_output","call_id":"c","output":"r"}]}`,
		`{"messages":[{"role":"user","content":[{"text":"q","type":"text"}]},`+
			`{"role":"assistant","content":[{"text":"a","type":"text"}],"reasoning_content":"hm",`+
			`"tool_calls":[{"function":{"arguments":"{}","name":"f"},"id":"c","type":"function"}]},`+
			`{"content":"r","role":"tool","tool_call_id":"c"}]}`)
	call := `{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}`
	thought := func(text string) string {
		return `{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"` + text + `"}]}`
	}
	said := func(text string) string {
		return `{"type":"message","role":"assistant","id":"i","content":"` + text + `"}`
	}
	called := `{"function":{"arguments":"{}","name":"f"},"id":"c","type":"function"}`
	f(`{"input":[`+call+`,`+thought("h")+`,`+said("a")+`,`+call+`,`+thought("hm")+`,`+said("b")+`]}`,
		`{"messages":[{"role":"assistant","tool_calls":[`+called+`,`+called+`],"reasoning_content":"hm",`+
			`"content":[{"text":"a","type":"text"},{"text":"b","type":"text"}]}]}`)
	f(`{"input":[`+said("a")+`,`+said("b")+`,{"role":"user","content":"q"},`+said("c")+`]}`,
		`{"messages":[{"role":"assistant","id":"i","content":[{"text":"a","type":"text"},{"text":"b","type":"text"}]},`+
			`{"role":"user","content":[{"text":"q","type":"text"}]},`+
			`{"role":"assistant","id":"i","content":[{"text":"c","type":"text"}]}]}`)
	f(`{"input":"x","tools":[{"type":"function","name":"f","parameters":{"b":1,"a":2}},{"type":"web_search"}]}`,
		`{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"b":1,"a":2},"strict":true}}]}`)
}

// TestATurnOfManyItemsIsReadOnce: neither bytes nor steps grow with the square of a turn.
func TestATurnOfManyItemsIsReadOnce(t *testing.T) {
	const long, items = 1 << 20, 255
	said := func(text string) string { return `{"type":"message","role":"assistant","content":` + quote(text) + `}` }
	body := gjson.Parse(`{"input":[` + said(strings.Repeat("a", long)) + strings.Repeat(`,`+said("x"), items) + `]}`)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	chat, off := chatFromResponses(body)
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, uint64(10*long); off != "" || got > most {
		t.Errorf("a turn of %d bytes and %d items more took %d bytes, reason %q; want %d at most", long, items, got, off, most)
	}
	content := gjson.Get(chat, "messages.0.content")
	if n := len(content.Array()); n != 1+items || content.Get("0.text").Str != strings.Repeat("a", long) || content.Get("255.text").Str != "x" {
		t.Errorf("%d parts; want %d", n, 1+items)
	}
}

func TestMessagesBecomeChat(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		got, off := chatFromMessages(gjson.Parse(body))
		if off != "" || got != want {
			t.Errorf("%s:\n got %s %q\nwant %s", body, got, off, want)
		}
	}
	f(`{"max_tokens":9,"system":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"messages":[{"role":"user","content":"hi"}]}`,
		`{"messages":[{"role":"system","content":"ab"},{"role":"user","content":"hi"}],"max_tokens":9}`)
	f(`{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"t"},
		{"type":"tool_use","id":"i","name":"f","input":{"b":1, "a":"\u00e9\/"}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"i","content":[{"type":"text","text":"r"}]}]}],
		"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"any"}}`,
		`{"messages":[{"role":"assistant","content":[{"type":"text","text":"t"}],"tool_calls":[{"id":"i","type":"function",`+
			`"function":{"name":"f","arguments":"{\"b\":1,\"a\":\"é/\"}"}}],"reasoning_content":"hm"},`+
			`{"role":"tool","tool_call_id":"i","content":"r"}],`+
			`"tools":[{"type":"function","function":{"name":"f","description":"","parameters":{"type":"object"}}}],"tool_choice":"required"}`)
	f(`{"system":"x-anthropic-billing-header: v=1; cch=a5145;You are","messages":[]}`,
		`{"messages":[{"role":"system","content":"x-anthropic-billing-header: v=1; cch=fffff;You are"}]}`)
}

func FuzzReadPrompt(f *testing.F) {
	for _, s := range []string{`{"prompt":[1,"a"]}`, `{"messages":[{"content":[{}]}]}`, `{"input":[{"role":"user","content":"x"}]}`, `{"system":[1],"messages":[[]]}`} {
		f.Add(s)
	}
	all := []Endpoint{EndpointChat, EndpointCompletions, EndpointCompletion, EndpointResponses, EndpointMessages, EndpointInfill}
	f.Fuzz(func(t *testing.T, body string) {
		if !gjson.Valid(body) {
			return
		}
		for _, e := range all {
			p, off := readPrompt(e, gjson.Parse(body))
			if off == "" && p.Kind == PromptChat && !gjson.ValidBytes(p.Chat) {
				t.Errorf("%s: %s became %s, which is not JSON", e, body, p.Chat)
			}
		}
	})
}
