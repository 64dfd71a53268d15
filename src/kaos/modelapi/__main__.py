"""`python -m kaos.modelapi pull|serve`.

`pull --model NAME --upstream URL` runs the sidecar of a Hosted ModelAPI (`puller`),
`serve --config FILE` the gateway of a Proxy ModelAPI (`gateway`). Both listen on `KAOS_LISTEN`.

Status 0 when told to stop, 1 when the work failed, 2 when the arguments or the configuration
are wrong; the last line on standard error is then one sentence for people, without a prefix,
because the kubelet shows it as the reason of a crashed container.
"""

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path

from kaos.telemetry import logs, serving


class _FailedError(Exception):
    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


def main(arguments: list[str] | None = None) -> int:
    """Run the process; returns its exit status."""
    options = _parser().parse_args(arguments)
    logs.configure(os.environ.get("LOG_LEVEL", "INFO"), os.environ.get("KAOS_LOG_FORMAT"))
    listen = os.environ.get("KAOS_LISTEN") or "127.0.0.1:8000"
    try:
        if options.command == "pull":
            asyncio.run(_pull(options.model, options.upstream, listen))
        else:
            _serve(options.config, listen)
    except (_FailedError, serving.ListenError) as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201 - the kubelet reads it
        return error.status if isinstance(error, _FailedError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m kaos.modelapi")
    commands = parser.add_subparsers(dest="command", required=True)
    pull = commands.add_parser("pull", help="keep a model in the store of an Ollama")
    pull.add_argument("--model", required=True)
    pull.add_argument("--upstream", required=True, help="base URL of the Ollama")
    serve = commands.add_parser("serve", help="serve models of other servers under one address")
    serve.add_argument("--config", required=True, type=Path, help="JSON or YAML")
    return parser


async def _pull(model: str, upstream: str, listen: str) -> None:
    import aiohttp  # noqa: PLC0415 - each command loads what it needs

    from kaos.modelapi import names, ollama_client, puller  # noqa: PLC0415

    try:
        overrides = names.parse_overrides(os.environ.get("KAOS_MODEL_OVERRIDES", ""))
    except names.OverrideError as error:
        raise _FailedError(str(error), 2) from error
    async with aiohttp.ClientSession() as http:
        client = ollama_client.OllamaClient(http, upstream)
        watch = puller.Puller(client, model, overrides=overrides)
        work = asyncio.create_task(watch.run())
        server = asyncio.create_task(serving.serve(puller.build_app(watch), listen=listen))
        try:
            await asyncio.wait([work, server], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                await work  # it never ends but by an error
            await server
        except ollama_client.PullError as error:
            raise _FailedError(str(error)) from error
        finally:
            for task in (work, server):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ollama_client.PullError):
                    await task


def _serve(config: Path, listen: str) -> None:
    from kaos.modelapi import config as configuration  # noqa: PLC0415
    from kaos.modelapi import gateway, litellm_backend  # noqa: PLC0415

    try:
        loaded = configuration.load(config)
        app = gateway.build_app(loaded, os.environ)
        if litellm_backend.check(loaded):
            litellm_backend.imported()  # what is wrong with it is told here in one sentence
    except (configuration.ConfigError, litellm_backend.BackendError) as error:
        raise _FailedError(str(error), 2) from error
    asyncio.run(serving.serve(app, listen=listen))


if __name__ == "__main__":
    sys.exit(main())
