"""A tool server's tools are in its status, read once a pod from what it says at its start."""

import pytest

from kaos import api
from kaos.reconcilers.mcpserver import parse_tools
from tests.unit.reconcilers.harness import ECHO, Cluster

SAYS = b'{"event": "serving tools", "server": "x", "tools": ["b", "a"], "level": "info"}'


@pytest.mark.parametrize(
    ("line", "tools"),
    [
        (SAYS, ["a", "b"]),
        (b'{"event": "serving tools"}', None),
        (b'{"event": "other", "tools": ["a"]}', None),
        (b"[1]", None),
        (b"Traceback (most recent call last):", None),
    ],
)
def test_what_a_line_tells(line: bytes, tools: list[str] | None) -> None:
    assert parse_tools(line) == tools


async def test_w11_available_tools_are_what_the_server_said(cluster: Cluster) -> None:
    cluster.logs.lines["p1"] = [b"not json", SAYS, *[b"{}"] * 100]
    await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.start_pod("mcpserver-echo", "p1")
    await cluster.roll_out("mcpserver-echo")
    await cluster.eventually(api.MCPServer, "echo", lambda s: s.status.get("availableTools"))
    found = await cluster.read(api.MCPServer, "echo")
    assert found.status["availableTools"] == ["a", "b"]

    # It is not forgotten while the server is away, and not read again from the same pod.
    await cluster.roll_out("mcpserver-echo", available=0)
    away = await cluster.eventually(api.MCPServer, "echo", lambda s: not s.status["ready"])
    assert away.status["availableTools"] == ["a", "b"]
    await cluster.roll_out("mcpserver-echo")
    await cluster.eventually(api.MCPServer, "echo", lambda s: s.status["ready"])
    assert cluster.logs.reads == 1


async def test_a_log_that_does_not_tell_leaves_the_server_ready(cluster: Cluster) -> None:
    cluster.logs.lines["p1"] = [b"{}"] * 200
    await cluster.apply("MCPServer", "echo", ECHO)
    await cluster.start_pod("mcpserver-echo", "p1")
    await cluster.roll_out("mcpserver-echo")
    found = await cluster.eventually(api.MCPServer, "echo", lambda s: s.status.get("ready"))
    assert "availableTools" not in found.status
