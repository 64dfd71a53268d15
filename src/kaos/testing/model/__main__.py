"""`python -m kaos.testing.model --script FILE [--listen HOST:PORT]`: the model in a pod."""

import argparse
import asyncio
import os
import sys
from pathlib import Path

import structlog
from pydantic import ValidationError

from kaos.telemetry import logs, serving
from kaos.testing.model.script import Script
from kaos.testing.model.server import ScriptedModel


def main(arguments: list[str] | None = None) -> int:
    """Serve a script until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m kaos.testing.model")
    parser.add_argument("--script", type=Path, help="a script in JSON; none: it may be PUT later")
    parser.add_argument("--listen", default=os.environ.get("KAOS_LISTEN", "127.0.0.1:8000"))
    parser.add_argument("--name", default="scripted", help="the model's name at /v1/models")
    options = parser.parse_args(arguments)
    logs.configure(os.environ.get("LOG_LEVEL", "INFO"), os.environ.get("KAOS_LOG_FORMAT"))
    try:
        script = Script()
        if options.script is not None:
            script = Script.model_validate_json(options.script.read_bytes())
        model = ScriptedModel(script=script, name=options.name)
        log = structlog.get_logger("kaos.testing.model")
        asyncio.run(
            serving.serve(
                model.app,
                listen=options.listen,
                on_listening=lambda url: log.info("listening", url=url),
            )
        )
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
