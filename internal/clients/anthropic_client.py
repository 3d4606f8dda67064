"""The official Python client of Anthropic."""

import anthropic

from cases import ABOUT, ASK, COUNT, KEY, READ, RETRIES, SHORT, URL, WEATHER, run, streamed

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=RETRIES)
TOOL = {"name": "get_weather", "description": "The weather of a city", "input_schema": WEATHER}
EXACT = {"extra_body": {"temperature": 0}}


def ask(messages=COUNT, on=client, **options):
    return on.messages.create(**{"model": "small", "messages": messages, "max_tokens": SHORT, **EXACT, **options})


def told(message):
    used = message.usage
    return {
        "text": "".join(b.text for b in message.content if b.type == "text"),
        "calls": [[b.name, b.input] for b in message.content if b.type == "tool_use"],
        "stop": message.stop_reason,
        # What llama-server had in the slot's cache is counted apart.
        "usage": [used.input_tokens + (used.cache_read_input_tokens or 0), used.output_tokens],
    }


def message():
    return told(ask(system="You are brief."))


def stream():
    with client.messages.stream(model="small", messages=COUNT, max_tokens=SHORT, **EXACT) as s:
        return streamed(s.text_stream)


def count():
    return client.messages.count_tokens(model="small", messages=COUNT).input_tokens


def tool_call():
    return told(ask(ASK, tools=[TOOL], max_tokens=64))


def tool_call_stream():
    with client.messages.stream(model="small", messages=ASK, max_tokens=64, tools=[TOOL], **EXACT) as s:
        return told(s.get_final_message())


def tool_answered():
    called = ask(ASK, tools=[TOOL], max_tokens=64)
    use = next(b for b in called.content if b.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Sunny, 21 degrees"}
    told_so = [{"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    return ask(ASK + told_so, tools=[TOOL]).role


def bad_request():
    ask(max_tokens="many")


def wrong_key():
    ask(on=client.with_options(api_key="wrong"))


def shared():
    answer = client.messages.with_raw_response.create(model="small", messages=READ, max_tokens=SHORT, **EXACT)
    return {"did": answer.headers.get("x-semsharekv"), "text": told(answer.parse())["text"]}


def shared_tool_call_stream():
    with client.messages.stream(model="small", messages=ABOUT, max_tokens=64, tools=[TOOL], **EXACT) as s:
        return {"did": s.response.headers.get("x-semsharekv"), "calls": told(s.get_final_message())["calls"]}


run([
    shared, shared_tool_call_stream,
    message, stream, count, tool_call, tool_call_stream, tool_answered, bad_request, wrong_key,
])
