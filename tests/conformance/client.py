"""The agent's MCP client as the conformance suite's client under test.

Run by the suite with the test server's URL as the last argument. The connection is the one an
agent makes (`kaos.agent.mcp_session`), with the pool's listing and calls; the scenario only says
which tools are called and with what.
"""
# ruff: noqa: T201 - a program that people run

import asyncio
import json
import os
import sys
from typing import Any

from kaos.agent.mcp_session import connect
from kaos.agent.tools import ToolFailed

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
ECHO = "json_schema_echo"
_VALUES: dict[str, Any] = {"integer": 5, "number": 5, "boolean": True, "array": [], "object": {}}


def arguments(schema: dict[str, Any]) -> dict[str, Any]:
    """Make arguments that fit a schema of simple types."""
    found: dict[str, Any] = {}
    for name in schema.get("required", ()):
        kind = (schema.get("properties", {}).get(name) or {}).get("type", "string")
        found[name] = _VALUES.get(kind, "x")
    return found


async def main(url: str) -> None:
    """List the tools and call what the scenario asks for."""
    async with connect(url, asyncio.Event(), 20.0) as session:
        tools, _ttl = await session.list_tools()
        wanted = [(call["name"], call["arguments"]) for call in CONTEXT.get("toolCalls", ())]
        schemas = {tool.name: tool.input_schema for tool in tools}
        if ECHO in schemas:  # asks for the schema of the other tool as the client sees it
            wanted = [(ECHO, {"schema": next(s for n, s in schemas.items() if n != ECHO)})]
        for name, given in wanted or [(t.name, arguments(t.input_schema)) for t in tools]:
            try:
                print(name, (await session.call(name, given, 20.0))["content"][:200])
            except ToolFailed as error:
                print(name, "failed:", error)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[-1]))
