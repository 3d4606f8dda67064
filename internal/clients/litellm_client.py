"""LiteLLM, with its OpenAI and its Anthropic side."""

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would load the list of prices

import litellm

from cases import ABOUT, ASK, COUNT, KEY, READ, SHORT, URL, WEATHER, run, streamed

litellm.suppress_debug_info = True  # it goes to standard output
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": WEATHER}}


def ask(messages=COUNT, **options):
    return litellm.completion(**{
        "model": "openai/small", "api_base": URL + "/v1", "api_key": KEY, "messages": messages,
        "temperature": 0, "max_tokens": SHORT, "num_retries": 0, **options,
    })


def call_in(answer):
    call = answer.choices[0].message.tool_calls[0].function
    return {"name": call.name, "arguments": json.loads(call.arguments)}


def did(answer):
    return answer._hidden_params["additional_headers"].get("llm_provider-x-semsharekv")


def completion():
    return ask().choices[0].message.content


def stream():
    return streamed(c.choices[0].delta.content for c in ask(stream=True))


def anthropic():
    return ask(model="anthropic/small", api_base=URL).choices[0].message.content


def anthropic_stream():
    return streamed(c.choices[0].delta.content for c in ask(model="anthropic/small", api_base=URL, stream=True))


def tool_call():
    return call_in(ask(ASK, tools=[TOOL], max_tokens=64))


def tool_call_stream():
    chunks = list(ask(ASK, tools=[TOOL], max_tokens=64, stream=True))
    return call_in(litellm.stream_chunk_builder(chunks, messages=ASK))


def wrong_key():
    ask(api_key="wrong")


def shared():
    answer = ask(READ)
    return {"did": did(answer), "text": answer.choices[0].message.content}


def shared_tool_call():
    answer = ask(ABOUT, tools=[TOOL], max_tokens=64)
    return {"did": did(answer), **call_in(answer)}


run([shared, shared_tool_call, completion, stream, anthropic, anthropic_stream, tool_call, tool_call_stream, wrong_key])
