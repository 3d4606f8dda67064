package proxy

import (
	"encoding/json"
	"math"

	"github.com/tidwall/gjson"
)

// Endpoint is one of the request forms that carry a prompt.
type Endpoint string

// The generation endpoints of llama-server.
const (
	EndpointChat        Endpoint = "chat"        // OpenAI chat completions
	EndpointCompletions Endpoint = "completions" // OpenAI completions
	EndpointCompletion  Endpoint = "completion"  // llama-server's own
	EndpointResponses   Endpoint = "responses"   // OpenAI responses
	EndpointMessages    Endpoint = "messages"    // Anthropic messages
	EndpointInfill      Endpoint = "infill"      // fill in the middle
)

// endpoints are llama-server's routes, aliases included.
var endpoints = map[string]Endpoint{
	"/v1/chat/completions": EndpointChat,
	"/chat/completions":    EndpointChat,
	"/api/chat":            EndpointChat,
	"/v1/completions":      EndpointCompletions,
	"/completions":         EndpointCompletion,
	"/completion":          EndpointCompletion,
	"/v1/responses":        EndpointResponses,
	"/responses":           EndpointResponses,
	"/v1/messages":         EndpointMessages,
	"/infill":              EndpointInfill,
}

// Reasons why a request is not shared that show in its body or headers.
const (
	offByHeader   = "off by header"
	offByRoute    = "route off"
	offEncoding   = "body not decodable"
	offJSON       = "body is not JSON"
	offList       = "list of prompts"
	offMultimodal = "multimodal"
	offSeveral    = "several answers"
	offLoRA       = "lora in request"
	offNoCache    = "cache_prompt off"
	offPinned     = "slot pinned by client"
	offForm       = "prompt form not understood"
)

// offBody looks for what makes a request of any form unfit for sharing.
func offBody(body gjson.Result) string {
	several := false
	for _, key := range []string{"n", "n_cmpl", "best_of"} {
		several = several || body.Get(key).Num > 1
	}
	slot, cache := body.Get("id_slot"), body.Get("cache_prompt")
	switch {
	case several:
		return offSeveral
	case body.Get("lora.#").Int() > 0:
		return offLoRA
	case cache.Exists() && cache.Type == gjson.False:
		return offNoCache
	case slot.Type == gjson.Number && slot.Num >= 0:
		return offPinned
	}
	return ""
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
	switch {
	case p.Type == gjson.String:
		return Prompt{Kind: PromptText, Text: p.String()}, ""
	case p.IsObject():
		if p.Get("multimodal_data").Exists() {
			return Prompt{}, offMultimodal
		}
		return Prompt{}, offForm
	case !p.IsArray():
		return Prompt{}, offForm
	}
	all := p.Array()
	numbers, text := 0, 0
	for _, v := range all {
		switch v.Type {
		case gjson.Number:
			numbers++
		case gjson.String:
			text++
		}
	}
	switch {
	case numbers == 0 && len(all) == 1:
		return textPrompt(all[0])
	case numbers == 0:
		return Prompt{}, offList
	case numbers+text < len(all):
		return Prompt{}, offForm
	case text == 0:
		ids, ok := tokenIDs(all)
		if !ok {
			return Prompt{}, offForm
		}
		return Prompt{Kind: PromptTokens, Tokens: ids}, ""
	}
	return mixedPrompt(all)
}

func mixedPrompt(all []gjson.Result) (Prompt, string) {
	var parts []PromptPart
	for i := 0; i < len(all); {
		if all[i].Type == gjson.String {
			parts = append(parts, PromptPart{Text: all[i].String()})
			i++
			continue
		}
		end := i
		for end < len(all) && all[end].Type == gjson.Number {
			end++
		}
		ids, ok := tokenIDs(all[i:end])
		if !ok {
			return Prompt{}, offForm
		}
		parts = append(parts, PromptPart{Tokens: ids})
		i = end
	}
	return Prompt{Kind: PromptMixed, Parts: parts}, ""
}

func tokenIDs(all []gjson.Result) ([]int32, bool) {
	ids := make([]int32, len(all))
	for i, v := range all {
		if v.Num < 0 || v.Num > math.MaxInt32 || v.Num != math.Trunc(v.Num) {
			return nil, false
		}
		ids[i] = int32(v.Num)
	}
	return ids, true
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
	p := body.Get("prompt")
	if !body.Get("input_prefix").Exists() || !body.Get("input_suffix").Exists() || p.Exists() && p.Type != gjson.String {
		return Prompt{}, offForm
	}
	in := Infill{
		Prefix: stringOf(body.Get("input_prefix"), ""),
		Suffix: stringOf(body.Get("input_suffix"), ""),
		Prompt: stringOf(p, ""),
	}
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
