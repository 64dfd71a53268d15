"""A kind kept in memory: a store, what fills it, and who is told of changes.

Guarantees: handlers are called inline, in the order of the watch, once per change, each with the
origin of the change: which controller's reconcile of which object wrote it, or None for everybody
else. A change is called our own only when that is proven (the write created the object, or was
conditional on a version and moved it, or the merge patch explains every difference); a doubtful one
counts as foreign, because one reconcile too many is cheap and one too few is a bug.
Why inline: with a buffer per handler, as in client-go, a handler that lags fills the memory. Ours
only put a key into a queue.
Which failure taught the deferral: the watch may show a write before its own answer is read, so
changes of an object are held back while a write to it is under way.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import structlog

from kaos.runtime.client import Client, Origin, Write
from kaos.runtime.codec import Object, version_number
from kaos.runtime.metrics import Metrics
from kaos.runtime.reflector import Reflector
from kaos.runtime.resources import Request, ResourceType
from kaos.runtime.selection import Selection, Transform
from kaos.runtime.store import Change, Store
from kaos.runtime.watcher import (
    UNSERVED,
    Changed,
    Deleted,
    Effect,
    Listed,
    Progress,
    Replaced,
    Watcher,
)

Handler = Callable[[Change, Origin | None], None]
_EVERYTHING = Selection()
_log = structlog.get_logger("kaos.runtime")


class _Scope:
    """One collection of the kind: all namespaces, or one of the chosen ones."""

    def __init__(self, informer: "Informer", namespace: str) -> None:
        self.namespace = namespace
        self.served: bool | None = None
        self._informer = informer

    def effect(self, effect: Effect) -> None:
        self._informer.effect(effect, self)

    def failed(self, error: Exception | None) -> None:
        self._informer.last_error = error


class Informer:
    """All objects of a kind (in the chosen namespaces), kept in step with the server."""

    def __init__(
        self,
        client: Client,
        resource: ResourceType,
        *,
        namespaces: Sequence[str] = (),
        metrics: Metrics | None = None,
        new_watcher: Callable[[], Watcher] = Watcher,
    ) -> None:
        self.resource = resource
        self.store = Store()
        self.last_error: Exception | None = None
        self.selection = _EVERYTHING
        self._shape: Transform | None = None
        self._namespaces = namespaces
        self._scopes = self._make_scopes(namespaces)
        self._running = False
        self._reflectors: list[Reflector] = []
        self._handlers: list[Handler] = []
        self._on_served: list[Callable[[bool], None]] = []
        self._state = asyncio.Event()
        self._under_way: dict[Request, int] = {}
        self._held: dict[Request, list[Change]] = {}
        self._own: dict[Request, dict[int, Origin]] = {}
        self._client = client
        self._new_watcher = new_watcher
        self._metrics = metrics or Metrics()
        self._metrics.cached_objects.labels(str(resource)).set_function(lambda: len(self.store))

    def select(self, selection: Selection) -> None:
        """Keep only this of the kind; before the watch starts, and before anybody relies on more.

        Raises:
            ValueError: When it is too late, or another selection was asked for.
        """
        if not selection.same(self.selection):
            if self._running or self._handlers or self.selection is not _EVERYTHING:
                raise ValueError(
                    f"{self.resource} is in the cache with another selection already; a kind has "
                    "one for all controllers: give it to `manager.watch`, before `manager.add`"
                )
            self.selection = selection
            self._shape = selection.shape()
            self._scopes = self._make_scopes(selection.namespaces or self._namespaces)
        for name, keys in selection.indexes.items():
            self.store.add_index(name, keys)

    def _make_scopes(self, namespaces: Sequence[str]) -> dict[str, _Scope]:
        scopes = namespaces if namespaces and self.resource.namespaced else ("",)
        return {namespace: _Scope(self, namespace) for namespace in scopes}

    @property
    def synced(self) -> bool:
        """Whether the kind is served and was listed completely."""
        return all(scope.served for scope in self._scopes.values())

    @property
    def served(self) -> bool | None:
        """False when the server does not know the kind, None while that is not known yet."""
        if self.synced:
            return True
        return False if any(s.served is False for s in self._scopes.values()) else None

    @property
    def pending(self) -> int:
        """How many own writes and held back changes wait for the watch, or for an answer."""
        held = sum(len(changes) for changes in self._held.values())
        return self.store.overlaid + held + sum(len(own) for own in self._own.values())

    def add_handler(self, handler: Handler) -> None:
        """Tell of changes; of what is there already as creations."""
        self._handlers.append(handler)
        for obj in list(self.store):
            self._call(handler, Change(None, obj, initial=True), None)

    def on_served(self, callback: Callable[[bool], None]) -> None:
        """Tell when the kind comes to be served (True), or ceases to be (False)."""
        self._on_served.append(callback)

    async def run(self) -> None:
        """Run until cancelled."""
        self._running = True
        client = self._client
        transport = self.selection.narrowed(client.transport)
        if transport is not client.transport:
            client = Client(transport, field_manager=client.field_manager)
        async with anyio.create_task_group() as group:
            for scope in self._scopes.values():
                watcher = self._new_watcher()
                watcher.known = self._known
                reflector = Reflector(
                    client,
                    self.resource,
                    scope,
                    namespace=scope.namespace,
                    selectors=self.selection.params(),
                    watcher=watcher,
                    metrics=self._metrics,
                )
                self._reflectors.append(reflector)
                group.start_soon(reflector.run)

    def refresh(self) -> None:
        """List the newest state; until then the kind is not synced. What is cached stays."""
        for scope in self._scopes.values():
            scope.served = None
        for reflector in self._reflectors:
            reflector.refresh()

    async def wait_synced(self) -> None:
        """Wait until the kind is listed: as long as it takes, the caller sets the deadline."""
        while not self.synced:
            await self._state.wait()

    async def wait_decided(self) -> None:
        """Wait until the kind is listed, or known not to be served."""
        while self.served is None:
            await self._state.wait()

    def effect(self, effect: Effect, scope: _Scope) -> None:
        """Take in what the watch told."""
        store, namespace = self.store, scope.namespace
        if self._shape is not None:
            effect = self._shaped(effect, self._shape)
        match effect:
            case Changed(obj):
                store.seen(obj.version, scope=namespace)
                self._tell(store.put(obj))
            case Deleted(obj):
                store.seen(obj.version, scope=namespace)
                self._tell(store.remove(obj))
            case Progress(version, complete):
                self._tell(store.progress(version, scope=namespace))
                if complete:
                    self._set_served(scope, served=True)
            case Listed(objects, version):
                self._call_nothing_own(version)
                for obj in objects:
                    self._tell([Change(c.old, c.new, initial=True) for c in store.put(obj)])
            case Replaced(objects, version):
                self._call_nothing_own(version)
                self._tell(store.replace(objects, version, scope=namespace))
                self._set_served(scope, served=True)
            case _ if effect is UNSERVED:
                gone = store.replace([], "", scope=namespace)
                self._set_served(scope, served=False)  # first: these are not deletions
                self._tell(gone)

    def _call_nothing_own(self, resource_version: str) -> None:
        """A list may hide foreign changes behind a version of ours."""
        listed = version_number(resource_version)
        for key in list(self._own):
            self._forget(key, listed)

    def write_started(self, write: Write) -> None:
        """See `WriteObserver`."""
        write.before = self.store.get(write.key)
        if write.origin is not None:
            self._under_way[write.key] = self._under_way.get(write.key, 0) + 1

    def write_ended(
        self, write: Write, written: Object | None, *, created: bool = False, gone: str = ""
    ) -> None:
        """See `WriteObserver`."""
        scope = self._scope_of(write.key)
        if written is not None and self.selection is not _EVERYTHING:
            written = self._selected(written)
        if scope is not None:
            if written is not None:
                self.store.written(written, scope=scope.namespace)
            elif gone:
                self.store.deleted(write.key, gone)
            if written is not None and write.origin and _is_proven(write, written, created):
                self._own.setdefault(written.key, {})[written.version] = write.origin
        if write.origin is None:
            return
        left = self._under_way.pop(write.key, 1) - 1
        if left:
            self._under_way[write.key] = left
        else:
            self._tell(self._held.pop(write.key, []))
        if written is not None:
            self._forget(written.key, self._version_watched(written.key))

    def _selected(self, written: Object) -> Object | None:
        """What is kept of an answer; what is not selected (any more) the watch tells of."""
        if not self.selection.matches(written):
            return None
        return written if self._shape is None else self._kept(written, self._shape)

    def _shaped(self, effect: Effect, shape: Transform) -> Effect:
        match effect:
            case Changed(obj):
                return Changed(self._kept(obj, shape))
            case Deleted(obj):
                return Deleted(self._kept(obj, shape))
            case Listed(objects, version):
                return Listed([self._kept(obj, shape) for obj in objects], version)
            case Replaced(objects, version):
                return Replaced([self._kept(obj, shape) for obj in objects], version)
        return effect

    def _kept(self, obj: Object, shape: Transform) -> Object:
        try:
            return shape(obj)
        except Exception:  # noqa: BLE001
            # A transform of the user's: it must not stop the watch; more is kept than was wanted.
            _log.exception("transform.failed", resource=str(self.resource), object=repr(obj))
            return obj

    def _known(self, obj: Object) -> Object:
        """The object of this very version that is kept already, if it is kept as it came."""
        if self._shape is not None:
            return obj
        kept = self.store.watched(obj.key)
        if kept is None or kept.metadata.resource_version != obj.metadata.resource_version:
            return obj
        return kept if kept.uid == obj.uid else obj

    def _version_watched(self, key: Request) -> int:
        """The version of this object that the watch has told and the handlers know."""
        watched = self.store.watched(key)
        return watched.version if watched is not None and not self._under_way.get(key) else -1

    def _scope_of(self, key: Request) -> _Scope | None:
        return self._scopes.get("") or self._scopes.get(key.namespace)

    def _set_served(self, scope: _Scope, *, served: bool) -> None:
        before, scope.served = self.served, served
        after = self.served
        self._state.set()
        self._state = asyncio.Event()
        if after is None or after == before:
            return
        _log.info("kind.served" if after else "kind.not_served", resource=str(self.resource))
        for callback in self._on_served:
            callback(after)

    def _tell(self, changes: list[Change]) -> None:
        for change in changes:
            if self._under_way:
                obj = change.latest
                generated = Request(obj.namespace, f"{obj.metadata.generate_name}*")
                waits = next((k for k in (obj.key, generated) if k in self._under_way), None)
                if waits is not None:
                    self._held.setdefault(waits, []).append(change)
                    continue
            origin: Origin | None = None
            if self._own:
                key, version = change.latest.key, change.latest.version
                if change.new is not None:
                    origin = self._own.get(key, {}).get(version)
                self._forget(key, version)
            for handler in self._handlers:
                self._call(handler, change, origin)

    def _forget(self, key: Request, version: int) -> None:
        """Changes of an object up to this version will not be told any more."""
        own = self._own.get(key)
        if own is not None:
            left = {of: who for of, who in own.items() if of > version}
            if left:
                self._own[key] = left
            else:
                del self._own[key]

    def _call(self, handler: Handler, change: Change, origin: Origin | None) -> None:
        try:
            handler(change, origin)
        except Exception:  # noqa: BLE001
            # A predicate or map function of the user's: it must not stop the watch.
            _log.exception(
                "handler.failed", resource=str(self.resource), object=repr(change.latest)
            )


def _is_proven(write: Write, written: Object, created: bool) -> bool:
    """Whether the version in the answer was made by this write and by nothing else."""
    if created:
        return True
    if write.based_on:
        return written.metadata.resource_version != write.based_on
    if write.merge is None or write.before is None:
        return False
    if write.before.metadata.resource_version == written.metadata.resource_version:
        return False
    return _content(merge_patch(write.before.to_dict(), write.merge)) == _content(written.to_dict())


def _content(body: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(body.get("metadata") or {})
    metadata.pop("resourceVersion", None)
    metadata.pop("generation", None)
    return {**body, "metadata": metadata}


def merge_patch(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7386) applied to a value; the value is not changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result
