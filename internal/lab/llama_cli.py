"""llama-server as a command: llama.cpp's own parsing of options and environment
(common_params_parse) and its own HTTP server, both as xllamacpp ships them. It
ends on SIGTERM, as llama-server does."""

import ctypes
import os
import signal
import sys

import xllamacpp as x

# LLAMA_EXAMPLE_SERVER, and where the extension type keeps its common_params: of
# the one version of xllamacpp that setup installs.
EXAMPLE_SERVER = 12
PARAMS_OFFSET = 16


def parse(argv):
    p = x.CommonParams()
    lib = ctypes.CDLL(os.path.join(os.path.dirname(x.__file__), "xllamacpp.abi3.so"))
    f = lib._Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E
    f.restype = ctypes.c_bool
    args = (ctypes.c_char_p * (len(argv) + 1))(*[a.encode() for a in argv], None)
    if not f(len(argv), args, ctypes.c_void_p(id(p) + PARAMS_OFFSET), EXAMPLE_SERVER, None):
        sys.exit(1)
    return p


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    params = parse(["llama-server"] + sys.argv[1:])
    try:
        server = x.Server(params)
    except Exception as e:
        sys.exit(f"llama-server: {e}")
    print("listening on", server.listening_address, file=sys.stderr, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    os._exit(0)
