"""A server of pre-serialised bytes: it costs next to nothing, so the client is what is measured.

It speaks just enough of the API for a list in pages, a streaming list, a watch, GETs and PATCHes of
one custom kind, and for kr8s to start up. Run by `bench.py`, pinned to a core of its own.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

PATH = "/apis/bench.example.com/v1/agents"


def agent(number: int, version: int) -> dict[str, object]:
    """An object of about 2.5 KB with managedFields, as a custom resource of KAOS has."""
    fields = {"f:spec": {f"f:field{n}": {} for n in range(34)}, "f:status": {"f:conditions": {}}}
    entry = {"operation": "Apply", "apiVersion": "bench.example.com/v1", "fieldsV1": fields}
    env = [{"name": f"VARIABLE_{n}", "value": "some value " * 2} for n in range(8)]
    moment = "2026-01-01T00:00:00Z"
    condition = {
        "status": "True",
        "reason": "Fine",
        "message": "all is well",
        "observedGeneration": 1,
    }
    names = ("Ready", "Accepted", "DependenciesReady", "Available")
    conditions = [condition | {"type": n, "lastTransitionTime": moment} for n in names]
    return {
        "apiVersion": "bench.example.com/v1",
        "kind": "Agent",
        "metadata": {
            "name": f"agent-{number}",
            "namespace": f"team-{number % 50}",
            "uid": f"00000000-0000-0000-0000-{number:012}",
            "resourceVersion": str(version),
            "generation": version,
            "creationTimestamp": moment,
            "labels": {"app": f"agent-{number}", "app.kubernetes.io/name": "agent"},
            "managedFields": [entry | {"manager": "kaos", "time": moment}],
        },
        "spec": {"model": "smollm2:135m", "instructions": "You help. " * 20, "env": env},
        "status": {"phase": "Ready", "conditions": conditions},
    }


class Server:
    """Answers made before the first request."""

    def __init__(self, objects: int, events: int) -> None:
        self.items = [json.dumps(agent(n, 1 + n)).encode() for n in range(objects)]
        self.base = objects + 1
        lines = [
            b'{"type":"MODIFIED","object":'
            + json.dumps(agent(n % objects, self.base + n)).encode()
            + b"}\n"
            for n in range(events)
        ]
        step = 50
        self.events = [b"".join(lines[n : n + step]) for n in range(0, len(lines), step)]
        added = [b'{"type":"ADDED","object":' + item + b"}\n" for item in self.items]
        self.initial = [b"".join(added[n : n + step]) for n in range(0, len(added), step)]
        end = {
            "resourceVersion": str(self.base),
            "annotations": {"k8s.io/initial-events-end": "true"},
        }
        bookmark = {"kind": "Agent", "apiVersion": "bench.example.com/v1", "metadata": end}
        self.end = json.dumps({"type": "BOOKMARK", "object": bookmark}).encode() + b"\n"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        target = head.split(b" ", 2)[1]
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                await reader.readexactly(int(line.split(b":")[1]))
        url = urlsplit(target.decode())
        query = {k: v[0] for k, v in parse_qs(url.query).items()}
        if query.get("watch"):
            await self._watch(query, writer)
        elif url.path.rstrip("/") == PATH:
            self._send(writer, self._page(query))
        elif "/agents/" in url.path:
            number = int(url.path.removesuffix("/status").rsplit("-", 1)[1])
            self._send(writer, self.items[number])
        else:
            self._send(writer, _META.get(url.path.rstrip("/"), b'{"kind":"Status","code":404}'))
        await writer.drain()

    def _page(self, query: dict[str, str]) -> bytes:
        start = int(query.get("continue", 0))
        stop = start + int(query.get("limit", len(self.items)))
        more = f',"continue":"{stop}"' if stop < len(self.items) else ""
        meta = f'"metadata":{{"resourceVersion":"{self.base}"{more}}}'
        head = f'{{"kind":"AgentList","apiVersion":"bench.example.com/v1",{meta},"items":['
        return head.encode() + b",".join(self.items[start:stop]) + b"]}"

    async def _watch(self, query: dict[str, str], writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        chunks = [*self.initial, self.end] if "sendInitialEvents" in query else []
        for chunk in [*chunks, *self.events]:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            await writer.drain()
        await asyncio.sleep(3600)

    @staticmethod
    def _send(writer: asyncio.StreamWriter, body: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))


_AGENTS = {
    "name": "agents",
    "singularName": "agent",
    "namespaced": True,
    "kind": "Agent",
    "verbs": ["get"],
}
_GROUP = {
    "name": "bench.example.com",
    "versions": [{"groupVersion": "bench.example.com/v1", "version": "v1"}],
}
_META = {
    "/version": b'{"major":"1","minor":"34","gitVersion":"v1.34.0"}',
    "/api": b'{"kind":"APIVersions","versions":["v1"]}',
    "/api/v1": b'{"kind":"APIResourceList","groupVersion":"v1","resources":[]}',
    "/apis": json.dumps({"kind": "APIGroupList", "groups": [_GROUP]}).encode(),
    "/apis/bench.example.com/v1": json.dumps(
        {"kind": "APIResourceList", "groupVersion": "bench.example.com/v1", "resources": [_AGENTS]}
    ).encode(),
}


async def main(objects: int, events: int) -> None:
    made = Server(objects, events)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
