"""What the Python clients are tried with, and how they say what came of it."""

import json
import os
import sys

URL = os.environ["URL"]  # of llama-server, or of the sidecar
KEY = os.environ["KEY"]
RETRIES = int(os.environ["RETRIES"])
DOCUMENT = os.environ["DOCUMENT"]  # resembles what was asked before
SHORT = 16  # tokens of an answer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "its name"}},
    "required": ["city"],
}


def call(city):
    return '<tool_call>\n{"name": "get_weather", "arguments": {"city": "%s"}}\n</tool_call>' % city


def turns(*texts):
    """A conversation that begins with the user."""
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


# The small model goes on as it was shown, surely enough that its answer does not
# hang on rounding, which changes with what llama-server finds in its cache.
# llama-server does not hold a model to tool_choice, so calls are shown too.
COUNT = turns("Count from 1 to 4.", "1, 2, 3, 4", "Count from 1 to 6.", "1, 2, 3, 4, 5, 6", "Count from 1 to 8.")
ASK = turns("Weather in Rome?", call("Rome"), "Weather in Madrid?", call("Madrid"), "Weather in Paris?")
ABOUT = [{"role": "user", "content": DOCUMENT + "\n\nWeather in Rome?"}] + ASK[1:]
READ = [{"role": "user", "content": DOCUMENT + "\n\nWhat is this text about?"}]


def run(cases):
    """Runs each case and prints what it returned, or how the client failed."""
    out = {}
    for case in cases:
        try:
            out[case.__name__] = case()
        except Exception as e:
            out[case.__name__] = {"error": type(e).__name__, "status": getattr(e, "status_code", None), "said": str(e)}
    json.dump(out, sys.stdout, indent=1)


def streamed(pieces):
    """The whole text, and whether it came in pieces."""
    pieces = [p for p in pieces if p]
    return {"text": "".join(pieces), "in pieces": len(pieces) > 1}
