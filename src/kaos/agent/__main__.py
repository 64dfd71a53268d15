"""`python -m kaos.agent`: an agent in a pod, set up by its environment."""
# ruff: noqa: E402 - the first statement must come before all other imports

import os
import sys
import types

# structlog loads rich if there is one (the [cli] extra): 6 MB and 80 ms for coloured traces
# that no pod prints. A module that is None is as good as not installed.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]

# pydantic looks through all installed packages for plugins, which is 1 MB and 30 ms; this
# process has none. Its switch for that saves the search only, so the searcher goes as well.
_NO_PLUGINS = types.ModuleType("pydantic.plugin._loader")
_NO_PLUGINS.get_plugins = tuple  # type: ignore[attr-defined]
sys.modules.setdefault(_NO_PLUGINS.__name__, _NO_PLUGINS)

# aiohttp's lists of hooks, of which we have none: 1 MB in C, next to nothing in Python.
os.environ.setdefault("FROZENLIST_NO_EXTENSIONS", "1")

import asyncio

import structlog

from kaos.agent.app import create_app
from kaos.agent.settings import Settings, SettingsError
from kaos.telemetry import logs, serving


def main() -> int:
    """Serve the agent until told to stop."""
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        sys.stderr.write(f"error: the agent cannot start: {error}\n")
        return 2
    logs.configure(settings.log_level, settings.log_format)
    try:
        app = create_app(settings)
    except SettingsError as error:
        sys.stderr.write(f"error: the agent cannot start: {error}\n")
        return 2
    log = structlog.get_logger("kaos.agent")

    def listening(url: str) -> None:
        log.info(
            "agent listening",
            agent=settings.name,
            url=url,
            model=settings.model_name,
            mcp_servers=sorted(settings.mcp_servers),
            peers=sorted(settings.peers),
        )

    try:
        asyncio.run(serving.serve(app, listen=settings.listen, on_listening=listening))
    except serving.ListenError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
