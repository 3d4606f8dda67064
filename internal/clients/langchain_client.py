"""LangChain's ChatOpenAI."""

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from cases import ABOUT, ASK, COUNT, KEY, READ, RETRIES, SHORT, URL, run, streamed


def model(**options):
    return ChatOpenAI(**{
        "model": "small", "base_url": URL + "/v1", "api_key": SecretStr(KEY), "temperature": 0, "max_retries": RETRIES,
        "max_tokens": SHORT, "include_response_headers": True, **options,
    })


@tool
def get_weather(city: str) -> str:
    """The weather of a city"""
    return "Sunny in " + city


def did(message):
    return message.response_metadata["headers"].get("x-semsharekv")


def calls(message):
    return [[c["name"], c["args"]] for c in message.tool_calls]


def invoke():
    return model().invoke(COUNT).content


def stream():
    return streamed(c.content for c in model().stream(COUNT))


def batch():
    return [m.content for m in model().batch([COUNT] * 3)]


def tool_call():
    return calls(model(max_tokens=64).bind_tools([get_weather]).invoke(ASK))


def tool_call_stream():
    whole = None
    for chunk in model(max_tokens=64).bind_tools([get_weather]).stream(ASK):
        whole = chunk if whole is None else whole + chunk
    return calls(whole)


def tool_answered():
    bound = model(max_tokens=64).bind_tools([get_weather])
    called = bound.invoke(ASK)
    return bound.invoke(ASK + [called, get_weather.invoke(called.tool_calls[0])]).type


def wrong_key():
    model(api_key=SecretStr("wrong")).invoke(COUNT)


def shared():
    answer = model().invoke(READ)
    return {"did": did(answer), "text": answer.content}


def shared_tool_call():
    answer = model(max_tokens=64).bind_tools([get_weather]).invoke(ABOUT)
    return {"did": did(answer), "calls": calls(answer)}


run([shared, shared_tool_call, invoke, stream, batch, tool_call, tool_call_stream, tool_answered, wrong_key])
