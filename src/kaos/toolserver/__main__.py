"""`python -m kaos.toolserver [ARG…]`: serve the tools that the environment names (see `settings`).

Arguments are those of a package's server.

Ends with status 0 when told to stop, 1 when the tools cannot be loaded or the port is taken,
2 when the environment is wrong; the last line on standard error then says why. That line is
what a kubelet shows as the reason of a crashed container.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import threading
from pathlib import Path

from kaos.telemetry import logs, serving
from kaos.telemetry.http import Observed
from kaos.telemetry.traced import traced
from kaos.toolserver import builtin, source
from kaos.toolserver.settings import Settings, SettingsError


def main(arguments: list[str]) -> int:
    """Run the process; returns its exit status."""
    env = os.environ
    # First, or the SDK would set up the root logger with handlers of its own.
    logs.configure(env.get("LOG_LEVEL", "INFO"), env.get("KAOS_LOG_FORMAT"))
    try:
        settings = Settings.from_env(env)
    except SettingsError as error:
        return _fail(error, 2)
    if settings.package or settings.url or settings.builtin not in ("", *builtin.BUILTIN):
        return _bridge(settings, arguments)

    from kaos.toolserver import server  # noqa: PLC0415 - half a second; a wrong setting needs none

    try:
        if settings.builtin:
            found = builtin.BUILTIN[settings.builtin]
            tools, instructions = list(found.tools), found.instructions
        else:
            tools, instructions = source.load(settings.source), ""
        mcp = server.build_server(settings.name, tools, instructions=instructions)
        app = server.build_app(mcp, allowed_hosts=settings.allowed_hosts)
        names = [tool.__name__ for tool in tools]

        def listening(url: str) -> None:
            server.log.info("serving tools", server=settings.name, tools=names, url=url)

        served = Observed(traced(app, settings.name))
        asyncio.run(serving.serve(served, listen=settings.listen, on_listening=listening))
    except (source.SourceError, server.ToolSchemaError, serving.ListenError) as error:
        return _fail(error, 1)
    return 0


def _bridge(settings: Settings, arguments: list[str]) -> int:
    """Serve what another MCP server does: a package's, or one at a URL."""
    from kaos.toolserver import bridge, packages  # noqa: PLC0415 - as above

    try:
        with contextlib.ExitStack() as stack:
            folder = settings.folder or Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="kaos-package-"))
            )
            asyncio.run(bridge.run(settings, arguments, folder))
    except (bridge.BridgeError, packages.PackageError, serving.ListenError) as error:
        return _fail(error, 1)
    return 0


def _fail(error: Exception, status: int) -> int:
    print(f"kaos.toolserver: {error}", file=sys.stderr, flush=True)  # noqa: T201
    return status


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if threading.active_count() > 1:
        # A tool that never returns would keep the interpreter from ending.
        os._exit(code)
    sys.exit(code)
