"""An MCP server on stdio that starts in 20 ms: the old protocol by hand, no SDK.

With the word `deaf` it never answers, with `broken` it ends before it does, with a reason.
"""

import json
import os
import subprocess
import sys
import time

TOOLS = ["echo", "environment", "arguments", "die", "grow", "child"]


def send(**message: object) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def call(name: str, arguments: dict[str, str], token: object) -> str:
    match name:
        case "echo":
            if token is not None:
                send(
                    method="notifications/progress",
                    params={"progressToken": token, "progress": 1, "total": 2},
                )
            return arguments["message"]
        case "environment":
            return os.environ.get(arguments["name"], "")
        case "arguments":
            return json.dumps(sys.argv[1:])
        case "grow":
            TOOLS.append("grown")
            send(method="notifications/tools/list_changed")
            return "grown"
        case "child":
            process = subprocess.Popen(["sleep", "600"])
            return f"{os.getpid()} {process.pid}"
        case _:
            os._exit(3)


def answer(method: str, params: dict[str, object]) -> dict[str, object] | None:
    match method:
        case "initialize":
            return {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}, "resources": {}},
                "serverInfo": {"name": "stub", "version": "1"},
                "instructions": "Use it well.",
            }
        case "tools/list":
            schema = {"type": "object"}
            return {"tools": [{"name": name, "inputSchema": schema} for name in TOOLS]}
        case "resources/list":
            return {"resources": [{"uri": "stub://one", "name": "one"}]}
        case "resources/read":
            return {"contents": [{"uri": params["uri"], "text": "first"}]}
        case "tools/call":
            meta = params.get("_meta") or {}
            assert isinstance(meta, dict)
            token = meta.get("progressToken")
            text = call(str(params["name"]), params.get("arguments") or {}, token)  # type: ignore[arg-type]
            return {"content": [{"type": "text", "text": text}]}
    return None


def main() -> None:
    if "broken" in sys.argv:
        sys.exit("Traceback (most recent call last):\nKeyError: 'TOKEN'\n")
    if "deaf" in sys.argv:
        time.sleep(600)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message["method"], message.get("params") or {})
        if result is None:
            send(id=message["id"], error={"code": -32601, "message": "no such method"})
        else:
            send(id=message["id"], result=result)


if __name__ == "__main__":
    main()
