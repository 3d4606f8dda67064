package proxy

import (
	"strings"

	"github.com/tidwall/gjson"
)

// chatFromMessages turns the body of an Anthropic messages request into the
// chat body that llama-server makes of it
// (server_chat_convert_anthropic_to_oai, tools/server/server-chat.cpp).
func chatFromMessages(body gjson.Result) (chat, off string) {
	var messages []string
	if system := body.Get("system"); system.Exists() && system.Type != gjson.Null {
		messages = append(messages, message("system", quote(systemText(system))).json())
	}
	in := body.Get("messages")
	if !in.IsArray() {
		return "", offForm
	}
	in.ForEach(func(_, m gjson.Result) bool {
		messages, off = appendMessage(messages, m)
		return off == ""
	})
	if off != "" {
		return "", off
	}
	out := object{{"messages", array(messages)}}
	if tools := body.Get("tools"); tools.IsArray() {
		out.set("tools", array(messagesTools(tools)))
	}
	switch body.Get("tool_choice.type").String() {
	case "auto":
		out.set("tool_choice", `"auto"`)
	case "any", "tool":
		out.set("tool_choice", `"required"`)
	}
	for _, key := range []string{"max_tokens", "temperature", "top_p", "top_k", "stream", "chat_template_kwargs"} {
		if v := body.Get(key); v.Exists() {
			out.set(key, v.Raw)
		}
	}
	if t := body.Get("thinking"); stringOf(t.Get("type"), "") == "enabled" {
		budget := "10000"
		if b := t.Get("budget_tokens"); b.Type == gjson.Number {
			budget = b.Raw
		}
		out.set("thinking_budget_tokens", budget)
	}
	return out.json(), ""
}

// systemText joins the text blocks of the system prompt.
func systemText(system gjson.Result) string {
	if system.Type == gjson.String {
		return steadyBillingHeader(system.String())
	}
	var b strings.Builder
	if system.IsArray() {
		system.ForEach(func(_, block gjson.Result) bool {
			if block.Get("type").String() == "text" {
				b.WriteString(steadyBillingHeader(stringOf(block.Get("text"), "")))
			}
			return true
		})
	}
	return b.String()
}

// steadyBillingHeader blots out the stamp that Claude Code puts into its
// system prompt and changes with every request, as the backend does.
func steadyBillingHeader(s string) string {
	const start, stamp, width = "x-anthropic-billing-header:", "cch=", 5
	if !strings.HasPrefix(s, start) {
		return s
	}
	i := strings.Index(s[len(start):], stamp)
	if i < 0 {
		return s
	}
	i += len(start) + len(stamp)
	if i+width >= len(s) || s[i+width] != ';' {
		return s
	}
	return s[:i] + strings.Repeat("f", width) + s[i+width:]
}

// appendMessage adds one message, which may become several: tool results are
// messages of their own in a chat.
func appendMessage(messages []string, m gjson.Result) ([]string, string) {
	role, content := stringOf(m.Get("role"), ""), m.Get("content")
	if !content.Exists() && role == "assistant" {
		return messages, ""
	}
	if !content.IsArray() {
		return append(messages, m.Raw), ""
	}
	var parts, calls, results []string
	var thinking strings.Builder
	off := ""
	content.ForEach(func(_, block gjson.Result) bool {
		switch block.Get("type").String() {
		case "text":
			parts = append(parts, block.Raw)
		case "thinking":
			thinking.WriteString(stringOf(block.Get("thinking"), ""))
		case "tool_use":
			var call string
			call, off = messagesCall(block)
			calls = append(calls, call)
		case "tool_result":
			var result string
			result, off = messagesResult(block)
			results = append(results, result)
		case "image", "document":
			off = offMultimodal
		}
		return off == ""
	})
	if off != "" {
		return nil, off
	}
	if len(parts) > 0 || len(calls) > 0 || thinking.Len() > 0 {
		out := message(role, `""`)
		if len(parts) > 0 {
			out.set("content", array(parts))
		}
		if len(calls) > 0 {
			out.set("tool_calls", array(calls))
		}
		if thinking.Len() > 0 {
			out.set("reasoning_content", quote(thinking.String()))
		}
		messages = append(messages, out.json())
	}
	return append(messages, results...), ""
}

func messagesCall(block gjson.Result) (call, off string) {
	args := "{}"
	if in := block.Get("input"); in.IsObject() {
		var ok bool
		if args, ok = dump(in); !ok {
			return "", offForm
		}
	}
	f := object{{"name", quote(stringOf(block.Get("name"), ""))}, {"arguments", quote(args)}}
	return object{
		{"id", quote(stringOf(block.Get("id"), ""))},
		{"type", `"function"`},
		{"function", f.json()},
	}.json(), ""
}

func messagesResult(block gjson.Result) (result, off string) {
	text := ""
	content := block.Get("content")
	if content.Type == gjson.String {
		text = content.String()
	} else if content.IsArray() {
		var b strings.Builder
		content.ForEach(func(_, c gjson.Result) bool {
			switch c.Get("type").String() {
			case "text":
				b.WriteString(stringOf(c.Get("text"), ""))
			case "image":
				off = offMultimodal
			}
			return off == ""
		})
		text = b.String()
	}
	return object{
		{"role", `"tool"`},
		{"tool_call_id", quote(stringOf(block.Get("tool_use_id"), ""))},
		{"content", quote(text)},
	}.json(), off
}

func messagesTools(tools gjson.Result) (all []string) {
	tools.ForEach(func(_, t gjson.Result) bool {
		schema := "{}"
		if s := t.Get("input_schema"); s.Exists() {
			schema = s.Raw
		}
		f := object{
			{"name", quote(stringOf(t.Get("name"), ""))},
			{"description", quote(stringOf(t.Get("description"), ""))},
			{"parameters", schema},
		}
		all = append(all, object{{"type", `"function"`}, {"function", f.json()}}.json())
		return true
	})
	return all
}
