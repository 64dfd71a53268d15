"""Garbage collection, and the end of namespaces and definitions: what a controller manager does.

Guarantees, for owner references: an object goes when the last of its owners is
gone (or never was: a reference is by uid); references to owners that are gone
are taken out where others remain; ``Foreground`` lets an owner go only after
the dependents that block it, ``Orphan`` leaves them behind without it. A
namespace goes after everything in it, a definition after its objects.

An owner of a kind that is not served counts as there, for as long as it is not served: better a
leftover than a loss. (A controller that wrote a child while its own definition was deleted left one
that, when the kind was back, was in the way of its successor for ever.) Reads the state of the
store, so that nothing is missed over a restart.
"""

import asyncio
import logging
from collections import deque
from typing import Any, NamedTuple

import msgspec

from kaos.local.apiserver import crd, deletion
from kaos.local.apiserver.definitions import DEFINITIONS_BUCKET
from kaos.local.apiserver.deletion import FOREGROUND, ORPHAN
from kaos.local.apiserver.metadata import drop_finalizer
from kaos.local.apiserver.options import DeleteOptions
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.resources import Resources
from kaos.local.apiserver.store import Event, Key, Record

_NAMESPACES = "/namespaces"
_BATCH = 100
_log = logging.getLogger(__name__)


class _Owner(msgspec.Struct, rename="camel"):
    uid: str = ""
    kind: str = ""
    api_version: str = ""
    block_owner_deletion: bool | None = None


class _Meta(msgspec.Struct, rename="camel"):
    uid: str = ""
    owner_references: list[_Owner] | None = None
    finalizers: list[str] | None = None
    deletion_timestamp: str | None = None


class _Head(msgspec.Struct):
    metadata: _Meta


_head = msgspec.json.Decoder(_Head).decode


class Place(NamedTuple):
    """Where an object is stored."""

    bucket: str
    key: Key


class Collector:
    """Follows all writes and deletes what has lost its reason to be.

    Args:
        resources: The verbs, through which it deletes.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._store = resources.store
        self._places: dict[str, Place] = {}  # by uid
        self._dependents: dict[str, set[Place]] = {}  # by the owner's uid
        self._queue: deque[Place] = deque()
        self._queued: set[Place] = set()
        self._undecided: set[Place] = set()  # their owner's kind is not served
        self._signal = asyncio.Event()
        self._kinds: dict[str, Kind] = {}
        self._generation = -1
        for bucket in self._store.buckets():
            for record in self._store.current(bucket):
                self._note(Place(bucket, record.key), _head(record.raw).metadata)
        self._store.on_write.append(self._follow)

    # Following writes

    def _follow(self, event: Event) -> None:
        place = Place(event.bucket, event.record.key)
        if event.bucket == DEFINITIONS_BUCKET:
            for undecided in self._undecided:
                self._enqueue(undecided)
            self._undecided.clear()
        if event.previous is not None:
            self._forget(place, _head(event.previous.raw).metadata)
        metadata = _head(event.record.raw).metadata
        if event.type != "DELETED":
            self._note(place, metadata)
            return
        for dependent in self._dependents.get(metadata.uid, ()):
            self._enqueue(dependent)
        for owner in metadata.owner_references or ():
            if (held := self._places.get(owner.uid)) is not None:
                self._enqueue(held)  # it may have waited for this one
        self._enqueue(Place(_NAMESPACES, ("", place.key[0])))
        kind = self._kind(place.bucket)
        if kind is not None and kind.crd:
            self._enqueue(Place(DEFINITIONS_BUCKET, ("", kind.crd)))

    def _note(self, place: Place, metadata: _Meta) -> None:
        self._places[metadata.uid] = place
        for owner in metadata.owner_references or ():
            self._dependents.setdefault(owner.uid, set()).add(place)
        if metadata.owner_references or metadata.deletion_timestamp:
            self._enqueue(place)

    def _forget(self, place: Place, metadata: _Meta) -> None:
        self._places.pop(metadata.uid, None)
        for owner in metadata.owner_references or ():
            held = self._dependents.get(owner.uid)
            if held is not None:
                held.discard(place)
                if not held:
                    del self._dependents[owner.uid]

    def _enqueue(self, place: Place) -> None:
        if place not in self._queued:
            self._queued.add(place)
            self._queue.append(place)
            self._signal.set()

    # Working

    async def run(self) -> None:
        """Work until cancelled, in small batches, so that requests come in between."""
        while True:
            await self._signal.wait()
            self.work(_BATCH)
            if not self._queue:
                self._signal.clear()
            await asyncio.sleep(0)

    def work(self, most: int | None = None) -> None:
        """Look at what has been written; all of it, or at most so many objects."""
        while self._queue and (most is None or most > 0):
            most = None if most is None else most - 1
            place = self._queue.popleft()
            self._queued.discard(place)
            try:
                self._attend(place)
            except Exception:  # noqa: BLE001
                # One object that cannot be handled must not keep the others from going.
                _log.exception("garbage collection of %s %s failed", *place)

    def _attend(self, place: Place) -> None:
        record = self._store.get(place.bucket, *place.key)
        kind = self._kind(place.bucket)
        if record is None or kind is None:
            return
        metadata = _head(record.raw).metadata
        if metadata.deletion_timestamp:
            self._finish(kind, record, metadata)
        elif metadata.owner_references:
            self._judge(kind, record, metadata)

    def _finish(self, kind: Kind, record: Record, metadata: _Meta) -> None:
        """Do for an object that is being deleted what it waits for."""
        finalizers = metadata.finalizers or ()
        if ORPHAN in finalizers:
            for dependent in list(self._dependents.get(metadata.uid, ())):
                self._drop_references(dependent, {metadata.uid})
            self._release(kind, record, ORPHAN)
        elif FOREGROUND in finalizers:
            blocked = False
            for dependent in list(self._dependents.get(metadata.uid, ())):
                self._enqueue(dependent)
                blocked = blocked or self._blocks(dependent, metadata.uid)
            if not blocked:
                self._release(kind, record, FOREGROUND)
        elif kind.resource == "namespaces":
            self._empty_namespace(kind, record)
        elif kind.bucket == DEFINITIONS_BUCKET:
            crd.clean_up(self._resources, record)

    def _blocks(self, dependent: Place, uid: str) -> bool:
        record = self._store.get(dependent.bucket, *dependent.key)
        owners = (_head(record.raw).metadata.owner_references or ()) if record else ()
        return any(owner.uid == uid and owner.block_owner_deletion for owner in owners)

    def _judge(self, kind: Kind, record: Record, metadata: _Meta) -> None:
        """Delete an object whose owners are all gone, or going and waiting for it."""
        solid, gone, waiting = 0, set(), set()
        for owner in metadata.owner_references or ():
            place = self._places.get(owner.uid)
            if place is not None and place.key[0] in {"", record.key[0]}:
                held = self._store.get(place.bucket, *place.key)
                above = _head(held.raw).metadata if held else _Meta()
                if above.deletion_timestamp and FOREGROUND in (above.finalizers or ()):
                    waiting.add(owner.uid)
                else:
                    solid += 1
            elif self._resources.registry.find_kind(owner.api_version, owner.kind) is None:
                solid += 1
                self._undecided.add(Place(kind.bucket, record.key))
            else:
                gone.add(owner.uid)
        if solid:
            if gone or waiting:
                self._drop_references(Place(kind.bucket, record.key), gone | waiting)
            return
        deeper = waiting and self._dependents.get(metadata.uid)
        options = DeleteOptions(propagation="Foreground" if deeper else "", uid=metadata.uid)
        deletion.delete_record(self._resources, kind, record, options)

    def _drop_references(self, place: Place, uids: set[str]) -> None:
        record, kind = self._store.get(place.bucket, *place.key), self._kind(place.bucket)
        if record is None or kind is None:
            return

        def drop(obj: dict[str, Any]) -> None:
            metadata = obj["metadata"]
            references = metadata.get("ownerReferences") or ()
            kept = [owner for owner in references if owner.get("uid") not in uids]
            metadata["ownerReferences"] = kept
            if not kept:
                del metadata["ownerReferences"]

        self._resources.rewrite(kind, record, drop)

    def _release(self, kind: Kind, record: Record, finalizer: str) -> None:
        current = self._store.get(kind.bucket, *record.key)

        if current is not None:
            self._resources.rewrite(kind, current, lambda obj: drop_finalizer(obj, finalizer))

    def _empty_namespace(self, namespaces: Kind, record: Record) -> None:
        name = record.key[1]
        remaining = False
        for kind in self._all_kinds().values():
            for held in self._store.current(kind.bucket, name) if kind.namespaced else ():
                if b'"deletionTimestamp"' not in held.raw:
                    deletion.delete_record(self._resources, kind, held, DeleteOptions())
                still = self._store.get(kind.bucket, *held.key)
                remaining = remaining or still is not None
        if remaining:
            return  # finalizers hold some; the last one calls again

        def finalize(obj: dict[str, Any]) -> None:
            kept = [f for f in obj["spec"].get("finalizers") or () if f != "kubernetes"]
            obj["spec"]["finalizers"] = kept

        current = self._store.get(_NAMESPACES, *record.key)
        if current is not None and b'"kubernetes"]' in current.raw:
            self._resources.rewrite(namespaces, current, finalize)

    # Kinds by bucket

    def _all_kinds(self) -> dict[str, Kind]:
        registry = self._resources.registry
        if self._generation != registry.generation:
            self._generation = registry.generation
            self._kinds = {
                kind.bucket: kind
                for kind in registry.kinds()
                if not kind.virtual and kind.api_version == kind.storage_api_version
            }
        return self._kinds

    def _kind(self, bucket: str) -> Kind | None:
        return self._all_kinds().get(bucket)
