"""The official Python client of OpenAI."""

import asyncio
import json

import openai
import pydantic

from cases import ABOUT, ASK, COUNT, KEY, READ, RETRIES, SHORT, URL, WEATHER, run, streamed

client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=RETRIES)
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": WEATHER}}


def ask(messages=COUNT, on=client, **options):
    return on.chat.completions.create(**{"model": "small", "messages": messages, "temperature": 0, "max_tokens": SHORT, **options})


def models():
    return len(client.models.list().data)


def chat():
    answer = ask(logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "tokens": [t.token for t in choice.logprobs.content],
        "usage": [answer.usage.prompt_tokens, answer.usage.completion_tokens],
    }


def chat_stream():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    choices = [c.choices[0] for c in chunks if c.choices]
    return {
        **streamed(c.delta.content for c in choices),
        "finish": choices[-1].finish_reason,
        "usage": [chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens],
    }


def left_early():
    with ask(stream=True, max_tokens=1000) as stream:
        next(iter(stream))
    return ask().choices[0].message.content


def several_at_once():
    async def both():
        async with openai.AsyncOpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=RETRIES) as several:
            return await asyncio.gather(*(ask(on=several) for _ in range(4)))

    return [a.choices[0].message.content for a in asyncio.run(both())]


def call_in(message):
    call = message.tool_calls[0].function
    return {"name": call.name, "arguments": json.loads(call.arguments)}


def tool_call():
    choice = ask(ASK, tools=[TOOL], max_tokens=64).choices[0]
    return {"finish": choice.finish_reason, **call_in(choice.message)}


def streamed_call(stream):
    name = arguments = ""
    for chunk in stream:
        for call in (chunk.choices and chunk.choices[0].delta.tool_calls) or []:
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    return {"name": name, "arguments": json.loads(arguments)}


def tool_call_stream():
    return streamed_call(ask(ASK, tools=[TOOL], max_tokens=64, stream=True))


def tool_answered():
    message = ask(ASK, tools=[TOOL], max_tokens=64).choices[0].message
    said = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny, 21 degrees"}
    return ask(ASK + [message, said], tools=[TOOL]).choices[0].finish_reason


class Person(pydantic.BaseModel):
    name: str
    age: int


def structured():
    return client.chat.completions.parse(
        model="small", messages=[{"role": "user", "content": "A person, as JSON."}], temperature=0, max_tokens=64, response_format=Person
    ).choices[0].message.parsed.model_dump()


def completion():
    return client.completions.create(model="small", prompt="one two three", temperature=0, max_tokens=SHORT).choices[0].text


def completion_stream():
    stream = client.completions.create(model="small", prompt="one two three", temperature=0, max_tokens=SHORT, stream=True)
    return streamed(c.choices[0].text for c in stream if c.choices)


def items(messages):
    """The conversation as the responses API has it."""
    kind = {"user": "input_text", "assistant": "output_text"}
    return [
        {"type": "message", "role": m["role"], "content": [{"type": kind[m["role"]], "text": m["content"]}]} for m in messages
    ]


def respond(messages=COUNT, **options):
    return client.responses.create(**{"model": "small", "input": items(messages), "temperature": 0, "max_output_tokens": SHORT, **options})


def responses():
    return respond().output_text


def responses_stream():
    events = list(respond(stream=True))
    return {
        **streamed(e.delta for e in events if e.type == "response.output_text.delta"),
        "last": events[-1].type,
    }


def responses_tool_call():
    tool = {"type": "function", "name": "get_weather", "description": "The weather of a city", "parameters": WEATHER}
    calls = [o for o in respond(ASK, tools=[tool], max_output_tokens=64).output if o.type == "function_call"]
    return {"name": calls[0].name, "arguments": json.loads(calls[0].arguments)}


def bad_request():
    ask("not a list of messages")


def wrong_key():
    ask(on=client.with_options(api_key="wrong"))


def wrong_path():
    client.post("/nowhere", cast_to=object, body={})


def no_embeddings():
    client.embeddings.create(model="small", input="text")


def shared():
    answer = client.chat.completions.with_raw_response.create(model="small", messages=READ, temperature=0, max_tokens=SHORT)
    return {"did": answer.headers.get("x-semsharekv"), "text": answer.parse().choices[0].message.content}


def shared_tool_call_stream():
    answer = client.chat.completions.with_raw_response.create(
        model="small", messages=ABOUT, temperature=0, max_tokens=64, tools=[TOOL], stream=True
    )
    return {"did": answer.headers.get("x-semsharekv"), **streamed_call(answer.parse())}


def shared_off():
    answer = client.chat.completions.with_raw_response.create(
        model="small", messages=READ, temperature=0, max_tokens=SHORT, extra_headers={"X-SemShareKV": "off"}
    )
    return {"did": answer.headers.get("x-semsharekv")}


run([
    shared, shared_tool_call_stream, shared_off,
    models, chat, chat_stream, left_early, several_at_once, tool_call, tool_call_stream, tool_answered, structured,
    completion, completion_stream, responses, responses_stream, responses_tool_call,
    bad_request, wrong_key, wrong_path, no_embeddings,
])
