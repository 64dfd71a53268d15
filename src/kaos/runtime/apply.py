"""Apply sets: the children an object wants, made so with as few writes as possible.

Guarantees: a child that is as desired is not written; one that drifted is put right; one that is
not desired any more (controlled by this owner and of our kinds) is deleted; an object that belongs
to somebody else is never touched (`NameConflict` names who that is); one that belonged to a deleted
owner of the same name is garbage: it is deleted, if the collector has not done so yet.

When is a child "as desired"? When its annotation holds the hash of the desired body (so that a
field we no longer want is noticed) and the desired body is contained in it (so that drift is
noticed; what the server or others added is left alone). Some values never come back as they were
sent ("1000m" comes back as "1"): when the server's answer to our own apply does not contain what we
sent, that answer is remembered as "as desired" until it changes. So a restart costs such a child
one idempotent write, and a steady state costs none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kaos.runtime.cache import Cache
from kaos.runtime.client import Client, Origin
from kaos.runtime.codec import Object, encode
from kaos.runtime.errors import Conflict, Invalid, NameConflict, NotFound, RuntimeFailure
from kaos.runtime.owners import is_controlled_by, set_controller_reference
from kaos.runtime.resources import Request, Resource, ResourceType, split_api_version
from kaos.runtime.store import Change

HASH_ANNOTATION = "kaos.tools/applied-hash"
_TRIES = 3


@dataclass(slots=True)
class Applied:
    """What an apply did.

    Attributes:
        objects: The children as they are now, in the order they were desired.
        written: How many were created or changed.
        pruned: What was deleted, as "Kind namespace/name".
        waiting: Children whose predecessor of that name is still being deleted: apply again when it
            is gone (an event like any other).
    """

    objects: list[Object] = field(default_factory=list)
    written: int = 0
    pruned: list[str] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)


class ApplySet:
    """The children an object wants: applied when they differ, pruned when unwanted.

    Args:
        client: To write with.
        cache: To compare with; it must watch the kinds.
        kinds: What is applied and pruned. Leave out of it what must outlive a change of mind
            (volumes): such a kind cannot be pruned, and is applied by the client.
        field_manager: Who owns the fields; default: the client's.
    """

    def __init__(
        self, client: Client, cache: Cache, *, kinds: Sequence[Resource], field_manager: str = ""
    ) -> None:
        self._client = client
        self._cache = cache
        self._kinds = {(r.api_version, r.kind): r for r in map(ResourceType.of, kinds)}
        self._manager = field_manager or None
        self._accepted: dict[tuple[ResourceType, Request], tuple[str, int]] = {}
        self._following = False

    async def apply(
        self,
        owner: Object,
        desired: Sequence[Mapping[str, Any]],
        *,
        labels: Mapping[str, str] | None = None,
    ) -> Applied:
        """Make the owner's children of our kinds be exactly the desired ones.

        Args:
            owner: The object the children are controlled by (the reference is added here).
            desired: Their bodies. Kinds outside of `kinds` are refused.
            labels: Ownership labels: an object without a controller that carries all of them is
                adopted, without them it is a NameConflict; and only children that carry them all
                are pruned.

        Raises:
            NameConflict: When a child's name is taken by somebody else's object. Children before
                it in the list are applied, nothing is pruned.
            RuntimeFailure: When a child's predecessor of that name is being deleted and the cache
                does not show it, so that no event may tell of its end: to be tried again.
        """
        for resource in self._kinds.values():
            if not self._cache.whole(resource):
                raise ValueError(f"{resource} is cached by metadata alone: nothing to compare with")
        self._follow()
        result = Applied()
        wanted: set[tuple[ResourceType, Request]] = set()
        for body in desired:
            resource = self._resource(body)
            child = set_controller_reference(owner, body)
            metadata = child["metadata"]
            key = Request(metadata.get("namespace", ""), metadata["name"])
            wanted.add((resource, key))
            await self._apply_one(owner, resource, key, child, labels or {}, result)
        await self._prune(owner, wanted, labels or {}, result)
        return result

    async def _apply_one(
        self,
        owner: Object,
        resource: ResourceType,
        key: Request,
        child: dict[str, Any],
        labels: Mapping[str, str],
        result: Applied,
    ) -> None:
        digest = hashlib.sha256(encode(child)).hexdigest()[:16]
        annotations = {**(child["metadata"].get("annotations") or {}), HASH_ANNOTATION: digest}
        body = {**child, "metadata": {**child["metadata"], "annotations": annotations}}
        live = self._cache.get(resource, key.name, key.namespace)
        if live is None:
            # The cache may lag behind; never take over what somebody created meanwhile.
            live = await self._read(resource, key)
        if live is not None and _is_of_predecessor(live, owner) and not live.deleting:
            await self._collect(owner, resource, live)
            live = await self._read(resource, key)
        for attempt in range(1, _TRIES + 1):
            if live is not None:
                predecessors = _is_of_predecessor(live, owner)
                if not predecessors:
                    _check_owner(live, owner, labels)
                if predecessors or live.deleting:
                    self._wait(resource, key, result)
                    return
                if self._is_as_desired(resource, live, body, digest):
                    result.objects.append(live)
                    return
                # Conditional, so that the echo of this write is known for what it is.
                body["metadata"]["resourceVersion"] = live.metadata.resource_version
            try:
                applied = await self._client.apply(
                    body, field_manager=self._manager, force=live is not None
                )
            except (Conflict, Invalid):
                # Invalid (400) is the word for "based on a version of what is gone".
                newest = await self._read(resource, key)
                if attempt == _TRIES or _version(newest) == _version(live):
                    raise
                body["metadata"].pop("resourceVersion", None)
                live = newest
                continue
            self._accepted[resource, key] = (digest, _fingerprint(applied))
            result.objects.append(applied)
            result.written += 1
            return

    def _wait(self, resource: ResourceType, key: Request, result: Applied) -> None:
        if self._cache.get(resource, key.name, key.namespace) is None:
            # The watch may never show it, nor its end, when it goes between two lists.
            raise RuntimeFailure(f"{resource.kind} {key} is still being deleted")
        result.waiting.append(key)

    async def _prune(
        self,
        owner: Object,
        wanted: set[tuple[ResourceType, Request]],
        labels: Mapping[str, str],
        result: Applied,
    ) -> None:
        for resource in self._kinds.values():
            if not self._cache.synced(resource):
                continue
            for child in self._cache.owned_by(resource, owner):
                marked = labels.items() <= child.metadata.labels_.items()
                if (resource, child.key) in wanted or child.deleting or not marked:
                    continue
                try:
                    await self._client.delete(resource, child.name, child.namespace, uid=child.uid)
                except NotFound:
                    continue
                result.pruned.append(f"{child.kind} {child.key}")

    async def _collect(self, owner: Object, resource: ResourceType, child: Object) -> None:
        """Do what the garbage collector is about to do; after an outage, it may take minutes.

        Only a live read proves that the owner we know is not the predecessor itself.
        """
        kind = await self._client.resolve(owner)
        try:
            now = await self._client.get(kind, owner.name, owner.namespace)
            if now.uid == owner.uid:
                await self._client.delete(resource, child.name, child.namespace, uid=child.uid)
        except NotFound:
            return

    def _follow(self) -> None:
        """Forget what is remembered of children that are gone, whoever deleted them."""
        if not self._following:
            self._following = True
            for resource in self._kinds.values():
                self._cache.informer(resource).add_handler(partial(self._forget, resource))

    def _forget(self, resource: ResourceType, change: Change, _: Origin | None) -> None:
        if change.new is None:
            self._accepted.pop((resource, change.latest.key), None)

    def _resource(self, body: Mapping[str, Any]) -> ResourceType:
        kind = (body.get("apiVersion", ""), body.get("kind", ""))
        if kind not in self._kinds:
            raise ValueError(f"{kind[1]} in {kind[0]} is not among the kinds of this apply set")
        return self._kinds[kind]

    async def _read(self, resource: ResourceType, key: Request) -> Object | None:
        try:
            return await self._client.get(resource, key.name, key.namespace)
        except NotFound:
            return None

    def _is_as_desired(
        self, resource: ResourceType, live: Object, body: Mapping[str, Any], digest: str
    ) -> bool:
        seen = (digest, _fingerprint(live))
        if self._accepted.get((resource, live.key)) == seen:
            return True
        # The body holds the hash too, so this also tells whether we want something else now.
        if not contains(live.to_dict(), body):
            return False
        self._accepted[resource, live.key] = seen
        return True


def _version(obj: Object | None) -> str:
    return obj.metadata.resource_version if obj is not None else ""


def _is_of_predecessor(live: Object, owner: Object) -> bool:
    """Whether a child belongs to an object that had the owner's name before, and is deleted."""
    other = live.metadata.controller
    if other is None or is_controlled_by(live, owner):
        return False
    group, found = (split_api_version(v)[0] for v in (owner.api_version, other.api_version))
    return (found, other.kind, other.name) == (group, owner.kind, owner.name)


def _check_owner(live: Object, owner: Object, labels: Mapping[str, str]) -> None:
    """Raise NameConflict unless the object is ours, or is a stray of ours to adopt."""
    if is_controlled_by(live, owner):
        return
    child = f"{live.kind} {live.key}"
    other = live.metadata.controller
    if other is not None:
        where = f"{live.namespace}/" if live.namespace else ""
        raise NameConflict(child, f"{other.kind} {where}{other.name}")
    if not labels or not labels.items() <= live.metadata.labels_.items():
        manager = live.metadata.labels_.get("app.kubernetes.io/managed-by")
        raise NameConflict(child, f"{manager}, by its label" if manager else "no controller at all")


def _fingerprint(obj: Object) -> int:
    """A hash of all that is not status: it changes when somebody changes the object."""
    meta = obj.metadata
    fields = tuple((k, raw) for k, raw in obj.fields().items() if k != "status")
    labels, annotations = tuple(meta.labels_.items()), tuple(meta.annotations_.items())
    return hash((meta.uid, labels, annotations, fields))


def contains(live: Any, desired: Any) -> bool:
    """Whether every desired value is there; what is there beyond it does not matter.

    Elements of lists are compared by name when they have one, as the server merges them, and by
    position otherwise. A desired null or empty value may be absent.
    """
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return not desired and live is None
        return all(contains(live.get(key), value) for key, value in desired.items())
    if isinstance(desired, (list, tuple)):
        return _contains_list(live or [], desired)
    return bool(live == desired)


def _contains_list(live: Any, desired: Sequence[Any]) -> bool:
    if not isinstance(live, list):
        return False
    if desired and all(isinstance(item, Mapping) and "name" in item for item in desired):
        named = {item.get("name"): item for item in live if isinstance(item, Mapping)}
        return all(contains(named.get(item["name"]), item) for item in desired)
    pairs = zip(live, desired, strict=False)
    return len(live) == len(desired) and all(contains(have, want) for have, want in pairs)
