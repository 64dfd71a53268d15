"""The cluster process: `python -m kaos.local`, started by `kaos up`.

Guaranteed: it owns its state folder or says who does and ends; SIGTERM, SIGINT and, when it was
started by a program in the foreground, that program's death (end-of-file on the lifeline) stop it
in order with exit code 0; what a killed predecessor left running is
ended first (by the node). It logs JSON
to `logs/cluster.log`; only what keeps it from starting goes to standard error, as one line.
"""

import argparse
import asyncio
import contextlib
import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import anyio
import structlog

from kaos.local import cluster
from kaos.local.state import DEFAULT_FOLDER, ClusterInfo, State, StateError
from kaos.telemetry import logs

OVERRIDES = "KAOS_MODEL_OVERRIDES"
_KEPT_LOG = 4 << 20
_OPEN_FILES = 10_240  # what macOS grants at most

log = structlog.get_logger("kaos.local")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster until told to stop; returns the exit code."""
    options = _parser().parse_args(arguments)
    state = State(options.state)
    try:
        state.own()
    except StateError as error:
        print(f"kaos: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return _run(state, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kaos.local", description=__doc__)
    parser.add_argument("--state", type=Path, default=Path(DEFAULT_FOLDER), metavar="DIR")
    parser.add_argument("--gateway-port", type=int, default=8080, metavar="PORT")
    parser.add_argument("--model-override", action="append", default=[], metavar="FROM=TO")
    parser.add_argument("--no-controllers", action="store_true")
    parser.add_argument("--lifeline", type=int, default=-1, metavar="FD")
    return parser


def _run(state: State, options: argparse.Namespace) -> int:
    state.forget_info()
    _allow_open_files()
    if options.model_override:
        os.environ[OVERRIDES] = ",".join(options.model_override)
    with _open_log(state) as file, os.fdopen(os.dup(2), "w") as terminal:
        logs.configure(os.environ.get("LOG_LEVEL", "INFO"), "json", stream=file)
        # Whatever writes without asking (a native library, a crash) writes into the log too.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        log.info("starting", state=str(state.folder), gateway_port=options.gateway_port)
        try:
            asyncio.run(_serve(state, options, terminal))
        except Exception as error:  # noqa: BLE001 (the last place that can tell of it)
            log.critical("the cluster failed", exception="".join(traceback.format_exception(error)))
            if not terminal.closed:
                print(f"kaos: {_words(error)}", file=terminal)
            return 1
        finally:
            state.forget_info()
        log.info("stopped")
    return 0


def _allow_open_files() -> None:
    """Raise the soft limit: macOS allows a shell 256 open files, which a dozen agents need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # a system that has another limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve(state: State, options: argparse.Namespace, terminal: TextIO) -> None:
    stop = anyio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.lifeline >= 0:
        os.set_inheritable(options.lifeline, False)  # a pod that held it would outlive us
        loop.add_reader(options.lifeline, _lifeline, options.lifeline, stop)

    def ready(info: ClusterInfo) -> None:
        state.write_info(info)
        log.info("ready", url=info.url, gateway=info.gateway_url)
        terminal.close()  # from here on nobody waits for our first words

    settings = cluster.ClusterSettings(
        state, options.gateway_port, controllers=not options.no_controllers
    )
    await cluster.run(settings, stop=stop, ready=ready)


def _lifeline(descriptor: int, stop: anyio.Event) -> None:
    """The program that started us is gone: its end of the pipe is closed."""
    if not os.read(descriptor, 1):
        asyncio.get_running_loop().remove_reader(descriptor)
        stop.set()


def _open_log(state: State) -> TextIO:
    """The log, appended to; the one before it is kept aside when it has grown."""
    path = state.cluster_log
    if path.exists() and path.stat().st_size > _KEPT_LOG:
        path.replace(path.with_suffix(".log.1"))
    return _Log(path.open("ab"), encoding="utf-8", line_buffering=True)


class _Log(io.TextIOWrapper):
    """A log that loses lines on a full disk: no reason for anything to fail."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


def _words(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        return error.strerror  # ours: the words without the number
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
