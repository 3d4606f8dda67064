"""Runs llama.cpp's own HTTP server, as xllamacpp ships it, with llama-server's
option names. It ends when its standard input closes, so that it never outlives
the program that started it."""

import argparse
import sys

import xllamacpp as x


def options():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", required=True)
    p.add_argument("--port", type=int, required=True)
    p.add_argument("--slot-save-path", required=True)
    p.add_argument("--ctx-size", type=int, default=8192, help="of all slots together")
    p.add_argument("--parallel", type=int, default=2)
    p.add_argument("--kv-unified", action="store_true")
    p.add_argument("--cache-reuse", type=int, default=0)
    p.add_argument("--cache-type-k", default="f16")
    p.add_argument("--cache-type-v", default="f16")
    p.add_argument("--flash-attn", choices=["on", "off", "auto"], default="auto")
    p.add_argument("--cache-idle-slots", action="store_true")
    p.add_argument("--cache-ram", type=int, default=None, help="MiB, 0 for none")
    p.add_argument("--no-cache-prompt", action="store_true")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--sleep-idle-seconds", type=int, default=-1)
    p.add_argument("--lora", default="")
    p.add_argument("--model-draft", default="")
    p.add_argument("--api-key", default="")
    p.add_argument("--chat-template", default="")
    p.add_argument("--rope-scaling", choices=["none", "linear", "yarn"])
    p.add_argument("--rope-freq-base", type=float, default=None)
    p.add_argument("--rope-freq-scale", type=float, default=None)
    p.add_argument("--yarn-orig-ctx", type=int, default=None)
    p.add_argument("--yarn-attn-factor", type=float, default=None)
    p.add_argument("--verbosity", type=int, default=None)
    return p.parse_args()


def cache_type(name):
    return getattr(x.ggml_type, "GGML_TYPE_" + name.upper())


def params(o):
    p = x.CommonParams()
    p.model.path = o.model
    p.hostnames = ["127.0.0.1"]
    p.port = o.port
    p.slot_save_path = o.slot_save_path.rstrip("/") + "/"
    p.n_ctx = o.ctx_size
    p.n_parallel = o.parallel
    p.kv_unified = o.kv_unified
    p.n_cache_reuse = o.cache_reuse
    p.cache_type_k = cache_type(o.cache_type_k)
    p.cache_type_v = cache_type(o.cache_type_v)
    p.flash_attn_type = getattr(
        x.llama_flash_attn_type,
        "LLAMA_FLASH_ATTN_TYPE_" + {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[o.flash_attn],
    )
    p.cache_idle_slots = o.cache_idle_slots
    p.cache_prompt = not o.no_cache_prompt
    if o.cache_ram is not None:
        p.cache_ram_mib = o.cache_ram
    if o.threads > 0:
        p.cpuparams.n_threads = o.threads
        p.cpuparams_batch.n_threads = o.threads
    p.sleep_idle_seconds = o.sleep_idle_seconds
    if o.lora:
        adapter = x.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = o.lora, 1.0
        p.lora_adapters = [adapter]
    if o.model_draft:
        p.speculative.types = [x.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        p.speculative.draft.mparams.path = o.model_draft
    if o.api_key:
        p.api_keys = [o.api_key]
    if o.chat_template:
        p.chat_template = o.chat_template
    rope(p, o)
    if o.verbosity is not None:
        p.verbosity = o.verbosity
    p.warmup = False
    p.endpoint_slots = True
    p.endpoint_metrics = True
    return p


def rope(p, o):
    for name in ("rope_freq_base", "rope_freq_scale", "yarn_orig_ctx", "yarn_attn_factor"):
        if getattr(o, name) is not None:
            setattr(p, name, getattr(o, name))
    if o.rope_scaling:
        p.rope_scaling_type = getattr(
            x.llama_rope_scaling_type, "LLAMA_ROPE_SCALING_TYPE_" + o.rope_scaling.upper()
        )


if __name__ == "__main__":
    server = x.Server(params(options()))
    print("listening on", server.listening_address, flush=True)
    sys.stdin.buffer.read()
