"""`python -m kaos.testing.model`: the model in a pod.

`--script FILE` plays a script; `--record FILE --upstream URL` writes one, of what the model at
that URL answers.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog
from pydantic import ValidationError
from starlette.types import ASGIApp

from kaos.telemetry import logs, serving
from kaos.testing.model.script import Script
from kaos.testing.model.server import ScriptedModel


def main(arguments: list[str] | None = None) -> int:
    """Serve a script until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m kaos.testing.model")
    parser.add_argument("--script", type=Path, help="a script in JSON; none: it may be PUT later")
    parser.add_argument("--listen", default=os.environ.get("KAOS_LISTEN", "127.0.0.1:8000"))
    parser.add_argument("--name", default="scripted", help="the model's name at /v1/models")
    parser.add_argument("--record", type=Path, help="write a script of what --upstream answers")
    parser.add_argument("--upstream", default="", help="the base URL of the model to record")
    options = parser.parse_args(arguments)
    if bool(options.record) != bool(options.upstream) or (options.record and options.script):
        parser.error("--record needs --upstream, and no --script")
    logs.configure(os.environ.get("LOG_LEVEL", "INFO"), os.environ.get("KAOS_LOG_FORMAT"))
    try:
        app = _app(options)
        log = structlog.get_logger("kaos.testing.model")
        asyncio.run(
            serving.serve(
                app,
                listen=options.listen,
                on_listening=lambda url: log.info("listening", url=url),
            )
        )
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _app(options: argparse.Namespace) -> ASGIApp:
    if options.record is not None:
        from kaos.testing.model.record import Recorder  # noqa: PLC0415 - aiohttp is a quarter second

        return Recorder(options.upstream, options.record).app
    script = Script()
    if options.script is not None:
        script = Script.model_validate_json(options.script.read_bytes())
    return ScriptedModel(script=script, name=options.name).app


if __name__ == "__main__":
    sys.exit(main())
