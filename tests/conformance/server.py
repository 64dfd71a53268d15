"""A tool server of ours as the conformance suite's server under test.

The fixture tools that the suite looks for, served by `kaos.toolserver.server` as a pod would.
Prints its URL when it listens; ends with SIGTERM.
"""
# ruff: noqa: T201 - a program that people run

import asyncio
import base64
from typing import Any

from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    EmbeddedResource,
    ImageContent,
    TextContent,
    TextResourceContents,
)

from kaos.telemetry import logs, serving
from kaos.telemetry.http import Observed
from kaos.toolserver.server import build_app, build_server
from kaos.toolserver.settings import LOCALHOST
from tests.conformance import beyond_tools
from tests.conformance.beyond_tools import PIXEL

_SILENCE = base64.b64encode(b"RIFF$\x00\x00\x00WAVEfmt " + b"\x00" * 28).decode()


def _resource() -> EmbeddedResource:
    contents = TextResourceContents(
        uri="test://embedded-resource",
        mime_type="text/plain",
        text="This is an embedded resource content.",
    )
    return EmbeddedResource(type="resource", resource=contents)


def _image() -> ImageContent:
    return ImageContent(type="image", data=PIXEL, mime_type="image/png")


def test_simple_text() -> str:
    """Return a text."""
    return "This is a simple text response for testing."


def test_image_content() -> list[ImageContent]:
    """Return an image."""
    return [_image()]


def test_audio_content() -> list[AudioContent]:
    """Return a sound."""
    return [AudioContent(type="audio", data=_SILENCE, mime_type="audio/wav")]


def test_embedded_resource() -> list[EmbeddedResource]:
    """Return a resource."""
    return [_resource()]


def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Return three blocks."""
    text = TextContent(type="text", text="Multiple content types test:")
    return [text, _image(), _resource()]


async def test_tool_with_progress(ctx: Context) -> str:
    """Report progress three times."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"Completed step {done} of 100")
        await asyncio.sleep(0.05)
    return "done"


def test_error_handling() -> str:
    """Fail."""
    raise ValueError("This tool intentionally returns an error for testing")


def test_missing_capability() -> str:
    """Ask for what a client without sampling does not have."""
    raise MCPError(
        MISSING_REQUIRED_CLIENT_CAPABILITY,
        "this tool needs sampling",
        {"requiredCapabilities": {"sampling": {}}},
    )


TOOLS: list[Any] = [
    test_simple_text,
    test_image_content,
    test_audio_content,
    test_embedded_resource,
    test_multiple_content_types,
    test_tool_with_progress,
    test_error_handling,
    test_missing_capability,
    *beyond_tools.TOOLS,
]


def main() -> None:
    """Serve until told to stop."""
    logs.configure("WARNING", "console")
    server = build_server("conformance", TOOLS)
    beyond_tools.add_to(server)
    app = build_app(server, allowed_hosts=LOCALHOST)
    asyncio.run(
        serving.serve(
            Observed(app),
            listen="127.0.0.1:0",
            on_listening=lambda url: print(f"{url}/mcp", flush=True),
        )
    )


if __name__ == "__main__":
    main()
