"""A scripted API server behind the Transport protocol: no sockets, so it runs on virtual time.

It keeps a history with resourceVersions like etcd does, pages lists, streams watches, and
misbehaves when told to. It knows just what the runtime asks for; the real protocol is tested over
HTTP.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from kaos.runtime import Unreachable
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream

Body = dict[str, Any]
Fault = Callable[[HttpRequest], HttpResponse | Exception | None]
Key = tuple[str, str]


def status(code: int, reason: str = "", message: str = "", **details: Any) -> HttpResponse:
    body: Body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    body |= {"message": message or reason, "details": details}
    return HttpResponse(code, json.dumps(body).encode())


GONE = status(410, "Expired", "too old resource version")
TOO_LARGE = status(
    504,
    "Timeout",
    "Too large resource version",
    causes=[{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
)


class _Watch:
    """One open watch; items are lines, an exception, or None for the end."""

    def __init__(self, collection: "Collection") -> None:
        self.items: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.collection = collection
        self.silent = False
        self.closed = False

    def send(self, kind: str, body: Body) -> None:
        if not self.silent:
            line = json.dumps({"type": kind, "object": body}).encode() + b"\n"
            delay = self.collection.server.watch_delay
            if delay:
                asyncio.get_running_loop().call_later(delay, self.items.put_nowait, line)
            else:
                self.items.put_nowait(line)


class Collection:
    """The objects of one kind."""

    def __init__(self, server: "FakeServer", api_version: str, kind: str) -> None:
        self.server = server
        self.api_version = api_version
        self.kind = kind
        self.objects: dict[Key, Body] = {}
        self.history: list[tuple[int, str, Body]] = []
        self.compacted = 0
        self.watches: list[_Watch] = []
        self.served = True
        self._uids = 0

    def put(self, name: str, namespace: str = "default", **fields: Any) -> Body:
        """Create or change an object; `meta` adds to its metadata."""
        meta = fields.pop("meta", {})
        old = self.objects.get((namespace, name))
        self.server.version += 1
        if old is None:
            self._uids += 1
            metadata: Body = {"name": name, "namespace": namespace, "uid": f"{name}-{self._uids}"}
            metadata |= {"generation": 1} if "spec" in fields else {}
        else:
            metadata = dict(old["metadata"])
            if "spec" in fields and fields["spec"] != old.get("spec"):
                metadata["generation"] = metadata.get("generation", 0) + 1
            fields = {k: v for k, v in old.items() if k not in _HEAD} | fields
        metadata |= meta
        metadata["resourceVersion"] = str(self.server.version)
        body = {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **fields}
        deleting = metadata.get("deletionTimestamp") and not metadata.get("finalizers")
        if deleting:
            self.objects.pop((namespace, name))
            self._tell("DELETED", body)
        else:
            self.objects[namespace, name] = body
            self._tell("ADDED" if old is None else "MODIFIED", body)
        return body

    def delete(self, name: str, namespace: str = "default") -> Body:
        old = self.objects[namespace, name]
        if old["metadata"].get("finalizers"):
            return self.put(name, namespace, meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
        del self.objects[namespace, name]
        self.server.version += 1
        metadata = {**old["metadata"], "resourceVersion": str(self.server.version)}
        body = {**old, "metadata": metadata}
        self._tell("DELETED", body)
        return body

    def compact(self) -> None:
        """Forget the history."""
        self.compacted = self.server.version
        self.history.clear()

    def end_watches(self, last: bytes | Exception | None = None) -> None:
        """Close all watches, after one last line or with an exception."""
        for watch in self.watches:
            if last is not None:
                watch.items.put_nowait(last)
            watch.items.put_nowait(None)
            watch.closed = True
        self.watches.clear()

    def bookmark(self) -> None:
        for watch in self.watches:
            watch.send("BOOKMARK", self._bookmark())

    def _bookmark(self, **annotations: str) -> Body:
        metadata = {"resourceVersion": str(self.server.version), "annotations": annotations}
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}

    def _tell(self, kind: str, body: Body) -> None:
        self.history.append((self.server.version, kind, body))
        for watch in self.watches:
            watch.send(kind, body)

    def list(self, params: dict[str, str]) -> HttpResponse:
        wanted = params.get("resourceVersion", "")
        if wanted and int(wanted) > self.server.version:
            return TOO_LARGE
        items = list(self.objects.values())
        at = self.server.version
        start = 0
        if token := params.get("continue"):
            version, offset = token.split(":")
            if int(version) < self.compacted:
                return GONE
            at, start = int(version), int(offset)
            items = self.server.snapshots[token]
        limit = int(params.get("limit", 0)) or len(items)
        if self.server.page_limit and "limit" in params:
            limit = self.server.page_limit
        page, rest = items[start : start + limit], items[start + limit :]
        metadata = {"resourceVersion": str(at)}
        if rest:
            token = f"{at}:{start + limit}"
            self.server.snapshots[token] = items
            metadata["continue"] = token
        body = {"kind": f"{self.kind}List", "metadata": metadata, "items": page}
        return HttpResponse(200, json.dumps(body).encode())

    def open(self, params: dict[str, str]) -> _Watch | HttpResponse:
        if not self.served:
            return status(404, "NotFound")
        watch = _Watch(self)
        wanted = params.get("resourceVersion", "")
        if "sendInitialEvents" in params:
            if not self.server.streaming:
                return status(422, "Invalid", "sendInitialEvents is forbidden")
            if wanted and int(wanted) > self.server.version:
                return TOO_LARGE
            for body in self.objects.values():
                watch.send("ADDED", body)
            watch.send("BOOKMARK", self._bookmark(**{"k8s.io/initial-events-end": "true"}))
        else:
            if int(wanted or 0) < self.compacted:
                return GONE
            for version, kind, body in self.history:
                if version > int(wanted or 0):
                    watch.send(kind, body)
        self.watches.append(watch)
        loop = asyncio.get_running_loop()
        loop.call_later(float(params["timeoutSeconds"]), watch.items.put_nowait, None)
        return watch


_HEAD = ("apiVersion", "kind", "metadata")


class FakeServer:
    """The whole server: collections by path."""

    def __init__(self) -> None:
        self.version = 100
        self.collections: dict[str, Collection] = {}
        self.snapshots: dict[str, list[Body]] = {}
        self.requests: list[tuple[float, HttpRequest]] = []
        self.faults: list[Fault] = []
        self.streaming = True
        self.page_limit = 0
        self.latency = 0.0
        self.watch_delay = 0.0
        self.closed = False

    def collection(self, path: str, kind: str) -> Collection:
        """Serve a kind at a path such as /api/v1/configmaps."""
        parts = path.split("/")
        api_version = parts[2] if parts[1] == "api" else f"{parts[2]}/{parts[3]}"
        return self.collections.setdefault(path, Collection(self, api_version, kind))

    def asked(self, *, watch: bool | None = None, method: str = "") -> list[HttpRequest]:
        """The requests so far: of a method, lists (watch=False), watches (watch=True)."""
        found = [r for _, r in self.requests if not method or r.method == method]
        if watch is None:
            return found
        return [r for r in found if r.method == "GET" and ("watch" in r.params) == watch]

    async def close(self) -> None:
        self.closed = True

    async def request(self, request: HttpRequest) -> HttpResponse:
        if (fault := self._note(request)) is not None:
            return fault
        if self.latency:
            await asyncio.sleep(self.latency)
        collection, namespace, name = self._route(request.path)
        if collection is None or not collection.served:
            return status(404, "NotFound")
        if request.method == "POST":
            return self._create(collection, namespace, request)
        if not name:
            return collection.list(dict(request.params))
        old = collection.objects.get((namespace, name))
        if old is None:
            if request.params.get("force"):
                return self._create(collection, namespace, request)
            return status(404, "NotFound", f"{name} not found", name=name)
        if request.method == "GET":
            return HttpResponse(200, json.dumps(old).encode())
        body = json.loads(request.body or b"{}")
        if request.method == "DELETE":
            uid = (body.get("preconditions") or {}).get("uid")
            if uid and uid != old["metadata"]["uid"]:
                return status(409, "Conflict", "uid differs")
            left = collection.delete(name, namespace)
            if left["metadata"].get("deletionTimestamp"):
                return HttpResponse(200, json.dumps(left).encode())
            gone = {
                "kind": "Status",
                "status": "Success",
                "details": {"uid": left["metadata"]["uid"]},
            }
            return HttpResponse(200, json.dumps(gone).encode())
        return self._change(collection, old, request, body)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[Stream]:
        fault = self._note(request)
        collection, *_ = self._route(request.path)
        if fault is not None:
            yield _Answer(fault)
        elif collection is None:
            yield _Answer(status(404, "NotFound"))
        else:
            opened = collection.open(dict(request.params))
            try:
                yield _Answer(opened) if isinstance(opened, HttpResponse) else _Answer(watch=opened)
            finally:
                if isinstance(opened, _Watch) and opened in collection.watches:
                    collection.watches.remove(opened)

    def _note(self, request: HttpRequest) -> HttpResponse | None:
        self.requests.append((asyncio.get_running_loop().time(), request))
        for fault in self.faults:
            found = fault(request)
            if isinstance(found, Exception):
                raise found
            if found is not None:
                return found
        return None

    def _route(self, path: str) -> tuple[Collection | None, str, str]:
        parts = path.strip("/").split("/")
        namespace = ""
        if "namespaces" in parts[:-2]:
            at = parts.index("namespaces")
            namespace = parts[at + 1]
            del parts[at : at + 2]
        head = 2 if parts[0] == "api" else 3
        collection = self.collections.get("/" + "/".join(parts[: head + 1]))
        return collection, namespace, next(iter(parts[head + 1 :]), "")

    def _create(self, collection: Collection, namespace: str, request: HttpRequest) -> HttpResponse:
        body = json.loads(request.body or b"{}")
        metadata = body.pop("metadata")
        if metadata.get("resourceVersion"):
            return status(400, "BadRequest", "resourceVersion should not be set on objects")
        name = metadata.get("name") or f"{metadata.get('generateName', '')}{self.version}"
        if (namespace, name) in collection.objects:
            return status(409, "AlreadyExists")
        fields = {k: v for k, v in body.items() if k not in _HEAD}
        made = collection.put(name, namespace, meta=metadata, **fields)
        return HttpResponse(201, json.dumps(made).encode())

    def _change(
        self, collection: Collection, old: Body, request: HttpRequest, body: Any
    ) -> HttpResponse:
        new = json.loads(json.dumps(old))
        if request.method == "PUT":
            new = body
        elif isinstance(body, list):
            for step in body:
                *path, last = step["path"].strip("/").split("/")
                target = new
                for part in path:
                    target = target[part]
                if step["op"] == "test" and target.get(last) != step["value"]:
                    return status(422, "Invalid", "the test failed")
                if step["op"] != "test":
                    target[last] = step["value"]
        else:
            new = _merge(new, body)
        wanted = new["metadata"].get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            return status(409, "Conflict", "the object has been modified")
        if new == old:
            return HttpResponse(200, json.dumps(old).encode())
        metadata = new.pop("metadata")
        key = old["metadata"]["name"], old["metadata"]["namespace"]
        fields = {k: v for k, v in new.items() if k not in _HEAD}
        made = collection.put(*key, meta=metadata, **fields)
        return HttpResponse(200, json.dumps(made).encode())


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


class _Answer:
    """A Stream of a watch, or of an answer that says no."""

    def __init__(
        self, response: HttpResponse | None = None, *, watch: _Watch | None = None
    ) -> None:
        self._response = response
        self._watch = watch
        self.status = response.status if response else 200
        self.retry_after = response.retry_after if response else None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        assert self._watch is not None
        while (item := await self._watch.items.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    async def read(self) -> bytes:
        assert self._response is not None
        return self._response.body


def refused(request: HttpRequest) -> Exception:
    """What a stopped server looks like."""
    return Unreachable(str(request), "connection refused")
