"""An agent with a tool server and a scripted model, for clients that are no part of this project.

Prints the URL of its `/mcp` when it listens; ends with SIGTERM.
"""
# ruff: noqa: T201 - a program that people run

import asyncio
from typing import Any

from kaos.agent.app import create_app
from kaos.agent.settings import Settings
from kaos.telemetry import logs, serving
from kaos.testing.model import ScriptedModel
from kaos.testing.model.script import Script
from kaos.toolserver.server import build_app, build_server
from kaos.toolserver.settings import LOCALHOST


def calling(name: str, **arguments: str) -> dict[str, Any]:
    """Make a turn that calls a tool."""
    return {"tool_calls": [{"name": name, "arguments": arguments}]}


CONVERSATIONS: list[dict[str, Any]] = [
    {
        "when": "use your tool",
        "by": "step",
        "turns": [calling("echo", text='it\'s "x"\n'), {"text": "It said: {last}"}],
    },
    {
        "when": "ask me for the weather",
        "by": "step",
        "turns": [calling("weather", city="Ulm"), {"text": "I see: {last}"}],
    },
    {"when": "be busy", "turns": [{"error": {"status": 429, "retry_after": 60}}], "repeat": True},
    {"when": "break off", "turns": [{"text": "a b c", "break_after": 2}], "repeat": True},
    {"turns": [{"text": "an answer"}], "repeat": True},
]


def echo(text: str) -> str:
    """Repeat a text."""
    return f"echo: {text}"


async def serve() -> None:
    """Serve until told to stop."""
    model = ScriptedModel(script=Script.model_validate({"conversations": CONVERSATIONS}))
    tools = build_app(build_server("tools", [echo]), allowed_hosts=LOCALHOST)
    async with model.serve() as model_url, serving.running(tools) as tools_url:
        settings = Settings(
            name="agent",
            model_api_url=model_url,
            model_name="scripted",
            mcp_servers={"tools": tools_url},
        )
        await serving.serve(
            create_app(settings),
            listen="127.0.0.1:0",
            on_listening=lambda url: print(f"{url}/mcp", flush=True),
        )


if __name__ == "__main__":
    logs.configure("ERROR", "console")
    asyncio.run(serve())
