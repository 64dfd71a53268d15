"""The smallest MCP server on stdio: a package that needs no other one.

Its tool `whoami` says how it was started: its arguments, and a variable of its environment.
"""

import json
import os
import sys
from typing import Any


def answer(method: str) -> dict[str, Any]:
    """The result of a request, or its error."""
    match method:
        case "initialize":
            result: dict[str, Any] = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "stdio-server", "version": "1.2"},
            }
        case "tools/list":
            result = {"tools": [{"name": "whoami", "inputSchema": {"type": "object"}}]}
        case "tools/call":
            words = json.dumps([*sys.argv[1:], os.environ.get("WHO", "")])
            result = {"content": [{"type": "text", "text": words}]}
        case _:
            return {"error": {"code": -32601, "message": "no such method"}}
    return {"result": result}


def main() -> None:
    """Answer the requests on standard input."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            reply = {"jsonrpc": "2.0", "id": message["id"], **answer(message["method"])}
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()
