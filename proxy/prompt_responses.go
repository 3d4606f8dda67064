package proxy

import (
	"slices"

	"github.com/tidwall/gjson"
)

// chatFromResponses turns the body of an OpenAI responses request into the
// chat body that llama-server makes of it
// (server_chat_convert_responses_to_chatcmpl, tools/server/server-chat.cpp),
// so that /apply-template gives the prompt it will prefill. What it would
// refuse is left to it: such a request is not shared.
func chatFromResponses(body gjson.Result) (chat, off string) {
	var messages []*spoken
	if in := body.Get("instructions"); in.Exists() {
		messages = append(messages, newSpoken(message("system", quote(stringOf(in, "")))))
	}
	input := body.Get("input")
	switch {
	case stringOf(body.Get("previous_response_id"), "") != "":
		return "", offForm
	case input.Type == gjson.String:
		messages = append(messages, newSpoken(message("user", input.Raw)))
	case input.IsArray():
		input.ForEach(func(_, item gjson.Result) bool {
			messages, off = appendResponsesItem(messages, item)
			return off == ""
		})
	default:
		return "", offForm
	}
	if off != "" {
		return "", off
	}
	out := objectOf(body)
	out.del("input", "instructions")
	out.set("messages", joinMessages(messages))
	if tools := body.Get("tools"); tools.Exists() {
		if !tools.IsArray() {
			return "", offForm
		}
		out.del("tools")
		if all := responsesTools(tools); len(all) > 0 {
			out.set("tools", array(all))
		}
	}
	if n := body.Get("max_output_tokens"); n.Exists() {
		out.del("max_output_tokens")
		out.set("max_tokens", n.Raw)
	}
	if r := body.Get("reasoning"); r.Exists() {
		if e := r.Get("effort"); e.Exists() {
			out.set("reasoning_effort", e.Raw)
		}
		out.del("reasoning")
	}
	return out.json(), ""
}

func message(role, content string) object {
	return object{{"role", quote(role)}, {"content", content}}
}

func joinMessages(messages []*spoken) string {
	raw := make([]string, len(messages))
	for i, m := range messages {
		raw[i] = m.json()
	}
	return array(raw)
}

// spoken is a message in the making. What an assistant says in several items becomes one
// message. What grows or is replaced by them is put in when all were read: anew with each it
// would take the square of their length.
type spoken struct {
	object
	assistant bool
	lists     map[string][]string // raw values of array members
	reasoning string              // raw, that of the last item; "" where none came later
}

func newSpoken(m object) *spoken {
	return &spoken{object: m, assistant: m.get("role").String() == "assistant"}
}

// add adds raw values to an array member, which it makes if need be.
func (s *spoken) add(key string, raw ...string) {
	all, begun := s.lists[key]
	if !begun {
		if was := s.get(key); was.IsArray() {
			was.ForEach(func(_, v gjson.Result) bool {
				all = append(all, v.Raw)
				return true
			})
		}
		s.set(key, "[]") // its place among the members
	}
	if s.lists == nil {
		s.lists = map[string][]string{}
	}
	s.lists[key] = append(all, raw...)
}

// reason replaces the reasoning.
func (s *spoken) reason(raw string) {
	if s.reasoning == "" {
		s.set(reasoningKey, raw) // its place among the members
	}
	s.reasoning = raw
}

func (s *spoken) json() string {
	for key, all := range s.lists {
		s.set(key, array(all))
	}
	if s.reasoning != "" {
		s.set(reasoningKey, s.reasoning)
	}
	return s.object.json()
}

const reasoningKey = "reasoning_content"

// appendResponsesItem adds one input item.
func appendResponsesItem(messages []*spoken, item gjson.Result) ([]*spoken, string) {
	role, kind := stringOf(item.Get("role"), ""), stringOf(item.Get("type"), "")
	content := item.Get("content")
	switch {
	case role == "user" || role == "system" || role == "developer":
		parts, off := responsesParts(content, "input_text")
		if off != "" {
			return nil, off
		}
		return append(messages, newSpoken(responsesMessage(item, parts))), ""
	case role == "assistant" && kind == "message":
		parts, off := responsesParts(content, "output_text", "input_text")
		if off != "" {
			return nil, off
		}
		messages, said := appendSaid(messages, responsesMessage(item, nil))
		said.add("content", parts...)
		return messages, ""
	case kind == "function_call":
		call, off := responsesCall(item)
		if off != "" {
			return nil, off
		}
		messages, said := appendSaid(messages, object{{"role", `"assistant"`}})
		said.add("tool_calls", call)
		return messages, ""
	case kind == "function_call_output":
		return appendResponsesOutput(messages, item)
	case kind == "reasoning":
		text := content.Get("0.text")
		if text.Type != gjson.String || !item.Get("summary").IsArray() {
			return nil, offForm
		}
		messages, said := appendSaid(messages, object{{"role", `"assistant"`}, {"content", "[]"}})
		said.reason(text.Raw)
		return messages, ""
	}
	return nil, offForm
}

// appendSaid returns the message that an assistant's next item goes into: the last one, if that is
// an assistant's, or else begun, which it adds.
func appendSaid(messages []*spoken, begun object) ([]*spoken, *spoken) {
	n := len(messages)
	if n == 0 || !messages[n-1].assistant {
		messages = append(messages, newSpoken(begun))
	}
	return messages, messages[len(messages)-1]
}

// responsesMessage is the item itself, with its content as chat parts.
func responsesMessage(item gjson.Result, parts []string) object {
	m := objectOf(item)
	m.del("type", "status")
	m.set("content", array(parts))
	return m
}

// responsesParts turns content, a string or typed parts, into text parts.
func responsesParts(content gjson.Result, types ...string) (parts []string, off string) {
	if content.Type == gjson.String {
		return []string{textPart(content.Raw)}, ""
	}
	if !content.IsArray() {
		return nil, offForm
	}
	content.ForEach(func(_, p gjson.Result) bool {
		kind := p.Get("type").String()
		if kind == "input_image" {
			off = offMultimodal
			return false
		}
		if text := p.Get("text"); slices.Contains(types, kind) && text.Type == gjson.String {
			parts = append(parts, textPart(text.Raw))
			return true
		}
		off = offForm // refusals, files and what is yet to come
		return false
	})
	return parts, off
}

func textPart(raw string) string { return `{"text":` + raw + `,"type":"text"}` }

func responsesCall(item gjson.Result) (call, off string) {
	args, id, name := item.Get("arguments"), item.Get("call_id"), item.Get("name")
	if args.Type != gjson.String || id.Type != gjson.String || name.Type != gjson.String {
		return "", offForm
	}
	return `{"function":{"arguments":` + args.Raw + `,"name":` + name.Raw + `},"id":` + id.Raw + `,"type":"function"}`, ""
}

func appendResponsesOutput(messages []*spoken, item gjson.Result) ([]*spoken, string) {
	id, output := item.Get("call_id"), item.Get("output")
	if id.Type != gjson.String {
		return nil, offForm
	}
	content := output.Raw
	if output.Type != gjson.String {
		parts, off := responsesParts(output, "input_text")
		if off != "" {
			return nil, off
		}
		content = array(parts)
	}
	return append(messages, newSpoken(object{{"content", content}, {"role", `"tool"`}, {"tool_call_id", id.Raw}})), ""
}

// responsesTools keeps the function tools; others have no chat form.
func responsesTools(tools gjson.Result) (all []string) {
	tools.ForEach(func(_, t gjson.Result) bool {
		if t.Get("type").String() != "function" {
			return true
		}
		f := objectOf(t)
		f.del("type")
		if !t.Get("strict").Exists() {
			f.set("strict", "true")
		}
		all = append(all, object{{"type", `"function"`}, {"function", f.json()}}.json())
		return true
	})
	return all
}
