"""`python -m kaos.agent`: an agent in a pod, set up by its environment."""

import kaos.agent.lean  # noqa: F401 # isort: skip - before all others, see there
import asyncio
import sys

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
