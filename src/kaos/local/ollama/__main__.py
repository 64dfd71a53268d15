"""`python -m kaos.local.ollama serve|pull|list|show`: the verbs of `ollama` that we need.

| variable | meaning |
|---|---|
| `OLLAMA_HOST` | where `serve` listens, `[http://]host[:port]`; default `127.0.0.1:11434` |
| `OLLAMA_MODELS` | folder of the names that are pulled; see `store` |
| `KAOS_MODEL_OVERRIDES` | `FROM=TO,…`: serve the model TO under the name FROM |
| `KAOS_LLM_THREADS` | threads of the model, default 1; see `llama` for why |
| `KAOS_LLM_SLOTS` | requests it answers at a time, default 2 |
| `KAOS_LLM_CONTEXT` | tokens of a request's context, default 4096 |

`pull`, `list` and `show` work on the store itself; no server needs to run. Status 0 when all
went well, 1 when it did not, 2 when arguments or variables are wrong.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from kaos.local.ollama.catalogue import CATALOGUE, UnknownModelError, resolve
from kaos.local.ollama.download import DownloadError, fetch
from kaos.local.ollama.engine import EngineSettings
from kaos.local.ollama.store import Store, cache_folder
from kaos.modelapi.names import OverrideError, parse_overrides
from kaos.telemetry import logs, serving

DEFAULT_PORT = 11434


class SettingsError(Exception):
    """A variable has a value that cannot be used."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    env = os.environ
    try:
        overrides = parse_overrides(env.get("KAOS_MODEL_OVERRIDES", ""))
        names = env.get("OLLAMA_MODELS")
        store = Store(cache_folder(env), Path(names) if names else None, CATALOGUE)
        if options.command == "serve":
            logs.configure(env.get("LOG_LEVEL", "INFO"), env.get("KAOS_LOG_FORMAT"))
            _serve(store, overrides, env)
        elif options.command == "pull":
            asyncio.run(_pull(store, overrides, options.model))
        elif options.command == "list":
            _list(store)
        else:
            _show(store, options.model)
    except (OverrideError, SettingsError) as error:
        return _fail(error, 2)
    except (UnknownModelError, DownloadError, serving.ListenError, LookupError) as error:
        return _fail(error, 1)
    return 0


def listen_address(host: str) -> str:
    """What `OLLAMA_HOST` means, as `host:port`."""
    host = host.strip().removeprefix("http://").rstrip("/")
    if host.startswith("[") or host.count(":") <= 1:
        name, separator, port = host.rpartition(":")
        if separator and not port.endswith("]"):
            return f"{name or '127.0.0.1'}:{port}"
    elif host:
        host = f"[{host}]"
    return f"{host or '127.0.0.1'}:{DEFAULT_PORT}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kaos.local.ollama", description="A stand-in for the ollama program."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer HTTP requests on OLLAMA_HOST")
    commands.add_parser("list", help="list the models that are pulled")
    for verb, text in (("pull", "fetch a model"), ("show", "tell about a model")):
        commands.add_parser(verb, help=text).add_argument("model")
    return parser


def _serve(store: Store, overrides: Mapping[str, str], env: Mapping[str, str]) -> None:
    from kaos.local.ollama.app import Ollama  # noqa: PLC0415 - the other verbs need no server

    settings = EngineSettings(
        threads=_number(env, "KAOS_LLM_THREADS", 1),
        slots=_number(env, "KAOS_LLM_SLOTS", 2),
        context=_number(env, "KAOS_LLM_CONTEXT", 4096),
    )
    ollama = Ollama(store, overrides=overrides, settings=settings)
    asyncio.run(serving.serve(ollama.app(), listen=listen_address(env.get("OLLAMA_HOST", ""))))


async def _pull(store: Store, overrides: Mapping[str, str], name: str) -> None:
    model = resolve(name, overrides)
    said = ""

    def progress(status: str, completed: int, total: int) -> None:
        nonlocal said
        percent = f" {completed * 100 // total}%" if total else ""
        if (line := status + percent) != said:
            print(line, flush=True)  # noqa: T201 - a command's output
        said = line

    await fetch(model.weights, store, progress)
    store.add(name, model)
    print("success")  # noqa: T201


def _list(store: Store) -> None:
    for pulled, model in store.list():
        size = f"{model.weights.size / 1e6:.0f} MB"
        print(f"{pulled.name}\t{size}\t{pulled.modified_at}")  # noqa: T201


def _show(store: Store, name: str) -> None:
    model = store.get(name)
    if model is None:
        raise LookupError(f"model '{name}' not found")
    details = model.details
    for key, value in {
        "parameters": details["parameter_size"],
        "quantization": details["quantization_level"],
        "license": model.license,
        "weights": store.path(model.weights),
    }.items():
        print(f"{key}\t{value}")  # noqa: T201


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(f"{name} must be a positive number, not {text!r}")
    return int(text)


def _fail(error: Exception, status: int) -> int:
    print(error, file=sys.stderr, flush=True)  # noqa: T201 - the kubelet reads it
    return status


if __name__ == "__main__":
    sys.exit(main())
