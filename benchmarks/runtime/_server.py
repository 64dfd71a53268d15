"""The API server of the benchmark: byte for byte what a real one would send, as fast as it goes.

It serves one kind: lists (paged, whole, or streamed into a watch), watches, reads, merge patches of
the status with their echo in the watches, and the little discovery that some clients insist on.
Every event is a chunk of its own, as real servers send them. It does not check anything.

The runner steers it: POST /bench/storm sends the updates, POST /bench/edits one edit every 10 ms
until every object was patched once; GET /bench/report tells what happened when (wall clock).

Run: `python _server.py OBJECTS`; prints its URL and ends with its standard input.
"""

import asyncio
import importlib
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from _objects import API_VERSION, COLLECTION, GROUP, KIND, PLURAL, VERSION, Objects, number_of

ROUNDS = 5
EDIT_EVERY = 0.01
PAGE = 500
_BATCH = 32
_ROUND = re.compile(rb'"observedRound":\s*(-?\d+)')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
_BOOKMARK = (
    b'{"type":"BOOKMARK","object":{"apiVersion":"%s","kind":"%s","metadata":{"resourceVersion":"%d",'
    b'"annotations":{"k8s.io/initial-events-end":"true"}}}}\n'
)


def _discovery() -> dict[str, Any]:
    version = {"groupVersion": API_VERSION, "version": VERSION}
    group = {"name": GROUP, "versions": [version], "preferredVersion": version}
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    kind = {"name": PLURAL, "singularName": "agent", "namespaced": True, "kind": KIND}
    resources = [kind | {"verbs": verbs}, kind | {"name": f"{PLURAL}/status", "verbs": verbs}]
    # kopf waits until these are there, also when it is told not to watch them.
    namespaces = {"name": "namespaces", "singularName": "", "namespaced": False, "verbs": verbs}
    core = {"groupVersion": "v1", "resources": [namespaces | {"kind": "Namespace"}]}
    definitions = {"name": "customresourcedefinitions", "singularName": "", "namespaced": False}
    definitions |= {"kind": "CustomResourceDefinition", "verbs": verbs}
    extensions = {"groupVersion": "apiextensions.k8s.io/v1", "version": "v1"}
    return {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/api/v1": core,
        "/apis": {
            "kind": "APIGroupList",
            "groups": [
                group,
                {
                    "name": "apiextensions.k8s.io",
                    "versions": [extensions],
                    "preferredVersion": extensions,
                },
            ],
        },
        "/apis/apiextensions.k8s.io/v1": extensions | {"resources": [definitions]},
        f"/apis/{GROUP}": group | {"kind": "APIGroup"},
        f"/apis/{API_VERSION}": {
            "kind": "APIResourceList",
            "groupVersion": API_VERSION,
            "resources": resources,
        },
    }


def event(text: bytes, kind: bytes = b"MODIFIED") -> bytes:
    return _chunk(b'{"type":"%s","object":%s}\n' % (kind, text))


def _chunk(line: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(line), line)


class Server:
    def __init__(self, count: int) -> None:
        self.objects = Objects(count)
        self.watches: list[Connection] = []
        self.discovery = {k: json.dumps(v).encode() for k, v in _discovery().items()}
        # Lists are asked for before anything changes: they are made before the clock runs.
        self.texts = [self.objects.text(number) for number in range(count)]
        self.list_version = self.objects.version
        self.whole = self._page(0, count)
        self.pages = [self._page(start, PAGE) for start in range(0, count, PAGE)]
        self.report: dict[str, Any] = {"patches": 0, "lists": 0, "patched": 0, "final": 0}
        self.edits: dict[int, tuple[int, float]] = {}
        self.latencies: list[float] = []
        self.editing = False
        self.tasks: set[asyncio.Task[None]] = set()

    def _page(self, start: int, size: int) -> bytes:
        end = start + size
        left = len(self.texts) - end
        token = f'"continue":"{end}","remainingItemCount":{left},' if left > 0 else ""
        head = (
            f'{{"apiVersion":"{API_VERSION}","kind":"{KIND}List","metadata":{{{token}'
            f'"resourceVersion":"{self.list_version}"}},"items":['
        )
        return head.encode() + b",".join(self.texts[start:end]) + b"]}\n"

    def handle(self, connection: "Connection", method: bytes, target: str, body: bytes) -> None:
        path, _, query = target.partition("?")
        if path == COLLECTION and method == b"GET":
            self._collection(connection, dict(parse_qsl(query)))
        elif method == b"PATCH":
            connection.answer(self._patch(number_of(path.split("/")[7]), body))
        elif path.startswith("/bench/"):
            connection.answer(self._steer(path))
        elif (known := self.discovery.get(path.rstrip("/"))) is not None:
            connection.answer(known)
        elif len(parts := path.split("/")) == 8 and method == b"GET" and parts[6] == PLURAL:
            connection.answer(self.objects.text(number_of(parts[7])))
        else:
            connection.answer(b'{"kind":"Status","status":"Failure","code":404}', b"404 Not Found")

    def _collection(self, connection: "Connection", params: dict[str, str]) -> None:
        self.report.setdefault("first_list", time.time())
        if params.get("watch") in ("true", "1", "True"):
            connection.transport.write(_STREAM)
            self._start(self._watch(connection, params))
            return
        self.report["lists"] += 1
        if "limit" in params:
            connection.answer(self.pages[int(params.get("continue", 0)) // PAGE])
        else:
            connection.answer(self.whole)

    async def _watch(self, connection: "Connection", params: dict[str, str]) -> None:
        since = int(params.get("resourceVersion") or 0)
        if params.get("sendInitialEvents") == "true" or not since:
            await connection.send(event(text, b"ADDED") for text in self.texts)
            if "sendInitialEvents" in params:
                bookmark = _BOOKMARK % (API_VERSION.encode(), KIND.encode(), self.list_version)
                await connection.send(iter([_chunk(bookmark)]))
            since = self.list_version
        while True:
            until, versions = self.objects.version, self.objects.versions
            changed = [number for number, version in enumerate(versions) if version > since]
            if not changed:
                break
            await connection.send(event(self.objects.text(number)) for number in changed)
            since = until
        self.watches.append(connection)

    def _patch(self, number: int, body: bytes) -> bytes:
        objects, report = self.objects, self.report
        found = _ROUND.search(body)
        seen = int(found[1]) if found else 0
        before = objects.observed[number]
        if objects.observe(number, seen):
            self._send(event(objects.text(number)))
        report["patches"] += 1
        if before < 0:
            report["patched"] += 1
            if report["patched"] == objects.count:
                report["all_patched"] = time.time()
        if before < ROUNDS <= seen:
            report["final"] += 1
            if report["final"] == objects.count:
                report["all_final"] = time.time()
        edit = self.edits.get(number)
        if edit is not None and seen >= edit[0]:
            del self.edits[number]
            self.latencies.append(time.time() - edit[1])
        return objects.text(number)

    def _send(self, data: bytes) -> None:
        for watch in self.watches:
            watch.transport.write(data)

    def _steer(self, path: str) -> bytes:
        if path == "/bench/storm":
            self._start(self._storm())
        elif path == "/bench/edits":
            self.editing = True
            self._start(self._edits())
        return json.dumps(
            self.report
            | {
                "latencies": self.latencies,
                "edits_waiting": len(self.edits),
                "editing": self.editing,
                "cpu": time.process_time(),
            }
        ).encode()

    async def _storm(self) -> None:
        """ROUNDS updates of each object, in a random order that is the same in every run."""
        order = list(range(self.objects.count)) * ROUNDS
        random.Random(5).shuffle(order)
        self.report["storm"] = time.time()
        for start in range(0, len(order), _BATCH):
            batch = []
            for number in order[start : start + _BATCH]:
                self.objects.edit(number)
                batch.append(event(self.objects.text(number)))
            for watch in self.watches:
                await watch.writable.wait()
            self._send(b"".join(batch))
            await asyncio.sleep(0)
        self.report["storm_sent"] = time.time()

    async def _edits(self) -> None:
        """A user edits random objects while the controller is busy with its start."""
        picks = random.Random(7)
        while not self.report["patched"]:  # noqa: ASYNC110 - a millisecond is exact enough
            await asyncio.sleep(0.001)
        while "all_patched" not in self.report:
            number = picks.randrange(self.objects.count)
            if number not in self.edits:
                self.objects.edit(number)
                self.edits[number] = self.objects.rounds[number], time.time()
                self._send(event(self.objects.text(number)))
            await asyncio.sleep(EDIT_EVERY)
        self.editing = False

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            print(repr(task.exception()), file=sys.stderr)


class Connection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self.writable.set()
        if self in self.server.watches:
            self.server.watches.remove(self)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def send(self, parts: Iterator[bytes]) -> None:
        while batch := b"".join(islice(parts, _BATCH)):
            await self.writable.wait()
            self.transport.write(batch)

    def answer(self, body: bytes, status: bytes = b"200 OK") -> None:
        self.transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (status, len(body), body)
        )

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            length = _LENGTH.search(head)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total], self.buffer[total:]
            method, target, _ = head.split(b"\r\n", 1)[0].split(b" ")
            self.server.handle(self, method, target.decode(), body)


async def main(count: int) -> None:
    server = Server(count)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), "127.0.0.1", 0)
    print("http://{}:{}".format(*listening.sockets[0].getsockname()[:2]), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    try:
        run = importlib.import_module("uvloop").run
    except ImportError:
        run = asyncio.run
    run(main(int(sys.argv[1])))
