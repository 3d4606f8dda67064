package proxy

import (
	"encoding/json"
	"math"
	"slices"

	"github.com/tidwall/gjson"
)

// PromptKind is the form in which a request states its prompt.
type PromptKind uint8

const (
	PromptText   PromptKind = iota // a string, tokenized with special tokens parsed
	PromptParts                    // token ids, or an array of strings and token ids
	PromptChat                     // messages, through the chat template
	PromptInfill                   // prefix and suffix around a hole
)

// Prompt is the prompt of one request, in the form it came in.
type Prompt struct {
	Kind  PromptKind
	Text  string
	Parts []PromptPart
	// Chat is an OpenAI chat body, as /apply-template takes it.
	Chat   json.RawMessage
	Infill Infill
}

// PromptPart is one part of a prompt: a string, or token ids in a row.
type PromptPart struct {
	Text   string
	Tokens []int32
}

// Infill is the prompt of a fill-in-the-middle request.
type Infill struct {
	Prefix, Suffix, Prompt string
	Extra                  []InfillFile
}

// InfillFile is a file given as context to a fill-in-the-middle request.
type InfillFile struct{ Name, Text string }

// offBody looks for what makes a request of any form unfit for sharing. body is valid JSON.
func offBody(body gjson.Result) string {
	slot, cache := body.Get("id_slot"), body.Get("cache_prompt")
	switch {
	case values(body.Raw) > maxValues:
		return offForm
	case givenTwice(body.Raw):
		return offTwice
	case several(body.Get):
		return offSeveral
	case cache.Exists() && cache.Type == gjson.False:
		return offNoCache
	case slot.Type == gjson.Number && slot.Num >= 0:
		return offPinned
	}
	return ""
}

// several reports whether more than one answer is asked for, or a number that the backend
// may read as such. get finds a member.
func several(get func(string) gjson.Result) bool {
	return slices.ContainsFunc([]string{"n", "n_cmpl", "best_of"}, func(key string) bool {
		n := get(key)
		return n.Exists() && n.Type != gjson.Null && (n.Type != gjson.Number || n.Num != 0 && n.Num != 1)
	})
}

// readPrompt finds the prompt in the body of a generation request. Where it
// cannot be told for certain what the backend will prefill, the reason why
// the request is not shared is returned instead. The prompt does not alias
// body.
func readPrompt(e Endpoint, body gjson.Result) (Prompt, string) {
	if !body.IsObject() {
		return Prompt{}, offJSON
	}
	switch e {
	case EndpointChat:
		return chatPrompt(body.Raw)
	case EndpointResponses:
		chat, off := chatFromResponses(body)
		if off != "" {
			return Prompt{}, off
		}
		return chatPrompt(chat)
	case EndpointMessages:
		chat, off := chatFromMessages(body)
		if off != "" {
			return Prompt{}, off
		}
		return chatPrompt(chat)
	case EndpointInfill:
		return infillPrompt(body)
	default:
		return textPrompt(body.Get("prompt"))
	}
}

// textPrompt reads the `prompt` of the completion endpoints: a string, token
// ids, or an array that mixes the two. An array without a number is a list of
// prompts, each in one of these forms; a list of one is that one.
func textPrompt(p gjson.Result) (Prompt, string) {
	p = only(p)
	switch {
	case p.Type == gjson.String:
		return Prompt{Kind: PromptText, Text: p.String()}, ""
	case p.IsObject() && p.Get("multimodal_data").Exists():
		return Prompt{}, offMultimodal
	case !p.IsArray():
		return Prompt{}, offForm
	case isList(p):
		return Prompt{}, offList
	}
	return partsPrompt(p)
}

// only is the prompt in a list of one, and p otherwise.
func only(p gjson.Result) gjson.Result {
	if !p.IsArray() {
		return p
	}
	first, n := gjson.Result{}, 0
	p.ForEach(func(_, v gjson.Result) bool {
		first = v
		n++
		return n < 2
	})
	if n == 1 && first.Type != gjson.Number {
		return first
	}
	return p
}

// isList reports whether p is an array without a number.
func isList(p gjson.Result) bool {
	list := p.IsArray()
	p.ForEach(func(_, v gjson.Result) bool {
		list = list && v.Type != gjson.Number
		return list
	})
	return list
}

// partsPrompt reads an array of texts and token ids, of these one at least.
func partsPrompt(p gjson.Result) (Prompt, string) {
	var parts []PromptPart
	off := ""
	p.ForEach(func(_, v gjson.Result) bool {
		switch v.Type {
		case gjson.String:
			parts = append(parts, PromptPart{Text: v.String()})
		case gjson.Number:
			id, ok := tokenID(v.Num)
			if !ok {
				off = offForm
				return false
			}
			if n := len(parts); n == 0 || parts[n-1].Tokens == nil {
				parts = append(parts, PromptPart{})
			}
			last := &parts[len(parts)-1]
			last.Tokens = append(last.Tokens, id)
		default:
			off = offForm
		}
		return true
	})
	if off != "" {
		return Prompt{}, off
	}
	return Prompt{Kind: PromptParts, Parts: parts}, ""
}

func tokenID(v float64) (int32, bool) {
	return int32(v), v >= 0 && v <= math.MaxInt32 && v == math.Trunc(v)
}

// chatPrompt takes an OpenAI chat body whose messages hold only text.
func chatPrompt(raw string) (Prompt, string) {
	messages := gjson.Get(raw, "messages")
	if !messages.IsArray() {
		return Prompt{}, offForm
	}
	off := ""
	messages.ForEach(func(_, m gjson.Result) bool {
		off = offContent(m.Get("content"))
		return off == ""
	})
	if off != "" {
		return Prompt{}, off
	}
	return Prompt{Kind: PromptChat, Chat: json.RawMessage(raw)}, ""
}

// offContent tells why a message's content is not text alone, or "".
func offContent(content gjson.Result) string {
	off := ""
	if content.IsArray() {
		content.ForEach(func(_, part gjson.Result) bool {
			switch part.Get("type").String() {
			case "text", "refusal":
			case "image_url", "input_audio", "input_video", "video_url", "image", "audio_url":
				off = offMultimodal
			default:
				off = offForm
			}
			return off == ""
		})
	}
	return off
}

// infillPrompt reads the fields of /infill.
func infillPrompt(body gjson.Result) (Prompt, string) {
	prefix, suffix, p := body.Get("input_prefix"), body.Get("input_suffix"), body.Get("prompt")
	if prefix.Type != gjson.String || suffix.Type != gjson.String || p.Exists() && p.Type != gjson.String {
		return Prompt{}, offForm // the first two may also be, or hold, token ids
	}
	in := Infill{Prefix: prefix.String(), Suffix: suffix.String(), Prompt: p.String()}
	extra := body.Get("input_extra")
	if extra.Exists() && !extra.IsArray() {
		return Prompt{}, offForm
	}
	ok := true
	extra.ForEach(func(_, f gjson.Result) bool {
		ok = f.Get("text").Type == gjson.String
		in.Extra = append(in.Extra, InfillFile{Name: stringOf(f.Get("filename"), "tmp"), Text: f.Get("text").String()})
		return ok
	})
	if !ok {
		return Prompt{}, offForm
	}
	return Prompt{Kind: PromptInfill, Infill: in}, ""
}
