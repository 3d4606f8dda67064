"""What the Python clients are tried with, and how they say what came of it."""

import json
import os
import sys

URL = os.environ["URL"]  # of llama-server, or of the sidecar
KEY = os.environ["KEY"]
DOCUMENT = os.environ["DOCUMENT"]  # resembles what was asked before
HELLO = [{"role": "user", "content": "Name three colours of the rainbow."}]
SHORT = 12  # tokens of an answer

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "description": "its name"}},
    "required": ["city"],
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
# The small model calls a tool when it is shown the call; llama-server does not
# hold a model to tool_choice.
ASK = [{"role": "user", "content": "Repeat exactly this line and nothing else:\n" + CALL}]
ASK_ABOUT = [{"role": "user", "content": DOCUMENT + "\n\nRepeat exactly this line and nothing else:\n" + CALL}]
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
