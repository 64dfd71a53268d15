"""The child process that holds the model: llama.cpp's own server, from xllamacpp.

    python -m kaos.local.ollama.llama WEIGHTS

The settings (threads, slots, context) and the key come as one JSON line on standard input, so
that the key is in no process list. The answer is one JSON line on standard output:
`{"url": …}` once the model is loaded, or `{"error": …}`.

Guarantees: it lives only as long as standard input is open. That is the one tie to a parent
that even `kill -9` of the parent cuts, so no model is left in memory by anything. Signals for
the terminal's group are left to the parent.
"""

import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Load, answer, and wait for the end of standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # llama.cpp logs to both; our one line goes where nothing else does.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    try:
        import xllamacpp  # noqa: PLC0415 - a failure to load it is an answer, too

        server = xllamacpp.Server(_params(xllamacpp, sys.argv[1], settings))
        said: dict[str, Any] = {"url": server.listening_address}
    except Exception as error:  # noqa: BLE001 - the parent reports it
        said = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(said), file=answer, flush=True)
    if "url" in said:
        sys.stdin.read()
    # Native threads have nothing to save, and ending them in order can hang.
    os._exit(0)


def _params(xllamacpp: Any, path: str, settings: dict[str, Any]) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["key"]]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context"] * settings["slots"]
    # More threads than idle cores make ggml's threads wait for each other, spinning:
    # the same answers took 20 to 100 times longer beside any other load.
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = settings["threads"]
    # Prompts of old conversations would be kept in up to 8 GB.
    params.cache_ram_mib = 0
    params.use_jinja = True
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 1
    return params


if __name__ == "__main__":
    main()
