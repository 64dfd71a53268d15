"""The objects of one kind: what the watch said, our own writes laid over it, and indexes of both.

Guarantees: readers see the newest state known: a write of ours from the moment it was answered,
until the watch shows that version or a later one. What is reported as a `Change` follows the watch
alone: each object's changes in order, a deletion for everything a new list no longer has, and a
deletion and a creation when a name comes back with another uid.
Does not: do I/O, know who is interested, or lock: it lives on one event loop.
Which failures taught it: deletions lost while a watch was broken (controller-runtime#2212), a
second child created because the first was not in the cache yet (controller-runtime#403, #1464).
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
import structlog

from kaos.runtime.codec import Object, version_number
from kaos.runtime.resources import Request

Keys = Callable[[Object], Iterable[str]]
Same = Callable[[Object, Object], bool]
NAMESPACES = "namespace"
OWNERS = "owner"
_log = structlog.get_logger("kaos.runtime")


class Change(msgspec.Struct, frozen=True, gc=False):
    """A change as the watch told it: `old` is None for a creation, `new` for a deletion."""

    old: Object | None
    new: Object | None
    initial: bool = False

    @property
    def latest(self) -> Object:
        """The new state, or the last one of what is gone."""
        found = self.new or self.old
        assert found is not None  # noqa: S101 - one of them is always there
        return found


class _Overlaid(NamedTuple):
    base: Object | None  # what the watch says, hidden by our write
    version: int  # the version of our last write; 0 when we only deleted
    gone: Object | None  # what we deleted


class Index:
    """Objects by keys that a function gives.

    Attributes:
        same: Whether an object that takes another's place has its keys for sure, if that can be
            told without asking the function: the usual change moves nothing in an index.
    """

    def __init__(self, name: str, keys: Keys, same: Same | None = None) -> None:
        self.same = same
        self._name = name
        self._function = keys
        self._members: dict[str, dict[Request, None]] = {}
        self._keys: dict[Request, tuple[str, ...]] = {}

    def put(self, key: Request, obj: Object) -> None:
        """An object is there, or is another one now."""
        try:
            keys = tuple(dict.fromkeys(self._function(obj)))
        except Exception:  # noqa: BLE001
            # A user's function must not stop the watch; the object is not found by this index.
            _log.exception("index.failed", index=self._name, object=repr(obj))
            keys = ()
        if keys == self._keys.get(key, ()):
            return
        self.remove(key)
        if keys:
            self._keys[key] = keys
            for k in keys:
                self._members.setdefault(k, {})[key] = None

    def remove(self, key: Request) -> None:
        """An object is gone."""
        for k in self._keys.pop(key, ()):
            members = self._members[k]
            members.pop(key, None)
            if not members:
                del self._members[k]

    def find(self, value: str) -> Iterable[Request]:
        """Which objects have this key."""
        return self._members.get(value, ())


def _namespace_of(obj: Object) -> Iterable[str]:
    return (obj.metadata.namespace,)


def _owner_of(obj: Object) -> Iterable[str]:
    owner = obj.metadata.controller
    return (owner.uid,) if owner is not None else ()


def _same_key(old: Object, new: Object) -> bool:  # noqa: ARG001
    return True


def _same_owners(old: Object, new: Object) -> bool:
    return old.metadata.owner_references == new.metadata.owner_references


class Store:
    """Objects by key, visible state and watched state; see the module."""

    def __init__(self) -> None:
        self._objects: dict[Request, Object] = {}
        self._overlay: dict[Request, _Overlaid] = {}
        self._indexes = {
            NAMESPACES: Index(NAMESPACES, _namespace_of, _same_key),
            OWNERS: Index(OWNERS, _owner_of, _same_owners),
        }
        self._all_indexes = list(self._indexes.values())
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Object]:
        return iter(self._objects.values())

    @property
    def overlaid(self) -> int:
        """How many writes of ours the watch has not shown yet."""
        return len(self._overlay)

    def get(self, key: Request) -> Object | None:
        """One object."""
        return self._objects.get(key)

    def watched(self, key: Request) -> Object | None:
        """One object as the watch last told, without our writes."""
        hidden = self._overlay.get(key)
        return self._objects.get(key) if hidden is None else hidden.base

    def select(self, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[Object]:
        """The objects of a namespace ("" for all) that carry all these labels."""
        found = self.find(NAMESPACES, namespace) if namespace else list(self._objects.values())
        if labels:
            wanted = labels.items()
            found = [obj for obj in found if wanted <= obj.metadata.labels_.items()]
        return found

    def add_index(self, name: str, keys: Keys) -> None:
        """Keep another index, also of what is there already."""
        if name in self._indexes:
            raise ValueError(f"there is an index named {name!r} already")
        index = self._indexes[name] = Index(name, keys)
        self._all_indexes.append(index)
        for key, obj in self._objects.items():
            index.put(key, obj)

    def find(self, index: str, value: str) -> list[Object]:
        """The objects under a key of an index; KeyError when there is no such index."""
        return [self._objects[key] for key in self._indexes[index].find(value)]

    # What the watch tells

    def replace(
        self, objects: Iterable[Object], resource_version: str, *, scope: str = ""
    ) -> list[Change]:
        """A complete list came: the changes that lead to it.

        Args:
            objects: Everything there is.
            resource_version: The version of the list; "" when the kind is not served at all.
            scope: The namespace that was listed, "" for all.
        """
        initial = scope not in self._seen
        listed = {obj.key: obj for obj in objects}
        changes: list[Change] = []
        for key, base in self._watched_in(scope):
            if key not in listed:
                changes += self._remove(key, base, version_number(resource_version))
        for obj in listed.values():
            changes += self.put(obj)
        changes += self.progress(resource_version, scope=scope)
        return [Change(c.old, c.new, initial=True) for c in changes] if initial else changes

    def put(self, obj: Object) -> list[Change]:
        """The watch shows an object: at most one change, or two when it is another one now."""
        key = obj.key
        hidden = self._overlay.get(key)
        old = self._objects.get(key) if hidden is None else hidden.base
        if hidden is None:
            self._set(key, obj)
        elif (hidden.gone.uid != obj.uid) if hidden.gone else (obj.version >= hidden.version):
            del self._overlay[key]
            self._set(key, obj)
        else:
            self._overlay[key] = hidden._replace(base=obj)
        if old is None:
            return [Change(None, obj)]
        if old.metadata.uid != obj.metadata.uid:
            return [Change(old, None), Change(None, obj)]
        if old.metadata.resource_version == obj.metadata.resource_version:
            return []
        return [Change(old, obj)]

    def remove(self, obj: Object) -> list[Change]:
        """The watch tells that an object is gone; `obj` is its last state."""
        return self._remove(obj.key, obj, obj.version)

    def progress(self, resource_version: str, *, scope: str = "") -> list[Change]:
        """The watch has told everything up to this version: overlays of older writes are ghosts."""
        seen = version_number(resource_version) if resource_version else sys.maxsize
        self._seen[scope] = seen
        if not self._overlay:
            return []
        changes: list[Change] = []
        for key, hidden in list(self._overlay.items()):
            if hidden.version > seen or (scope and key.namespace != scope):
                continue
            if hidden.gone and hidden.base is not None:
                continue  # its deletion is still to be told
            # Of what came and went between two lists, the watch tells nothing: we do.
            ghost = hidden.gone or self._objects.get(key)
            self._uncover(key, hidden.base)
            if ghost is not None:
                changes.append(Change(ghost, hidden.base))
        return changes

    def seen(self, version: int, *, scope: str = "") -> None:
        """An event of this version was told."""
        self._seen[scope] = version

    # What we write ourselves

    def written(self, obj: Object, *, scope: str = "") -> None:
        """A write of ours was answered with this state."""
        key, version = obj.key, obj.version
        if version <= self._seen.get(scope, 0):
            return  # the watch was faster; it knows better by now
        current = self._objects.get(key)
        if current is not None and current.version >= version:
            return
        hidden = self._overlay.get(key)
        if hidden is not None and hidden.gone and hidden.gone.uid == obj.uid:
            return  # written, then deleted, and answered the other way round
        base = self._objects.get(key) if hidden is None else hidden.base
        self._overlay[key] = _Overlaid(base, version, None)
        self._set(key, obj)

    def deleted(self, key: Request, uid: str) -> None:
        """A deletion of ours was answered with "it is gone"."""
        current = self._objects.get(key)
        if current is None or current.uid != uid:
            return
        hidden = self._overlay.get(key)
        self._unset(key)
        # What the watch has not even shown yet stays hidden as well: it will be shown.
        base, version = (current, 0) if hidden is None else (hidden.base, hidden.version)
        self._overlay[key] = _Overlaid(base, version, current)

    def _remove(self, key: Request, last: Object, version: int) -> list[Change]:
        hidden = self._overlay.get(key)
        base = self._objects.get(key) if hidden is None else hidden.base
        if hidden is None:
            self._unset(key)
        elif hidden.version > version >= 0:
            # What was deleted is older than what we wrote: ours is another object of that name.
            self._overlay[key] = hidden._replace(base=None)
        else:
            self._uncover(key, None)
        return [Change(last if base.uid == last.uid else base, None)] if base is not None else []

    def _watched_in(self, scope: str) -> list[tuple[Request, Object]]:
        found: list[tuple[Request, Object]] = []
        for key in [*self._objects, *(k for k in self._overlay if k not in self._objects)]:
            base = self.watched(key)
            if base is not None and (not scope or key.namespace == scope):
                found.append((key, base))
        return found

    def _uncover(self, key: Request, base: Object | None) -> None:
        del self._overlay[key]
        if base is None:
            self._unset(key)
        else:
            self._set(key, base)

    def _set(self, key: Request, obj: Object) -> None:
        old = self._objects.get(key)
        self._objects[key] = obj
        for index in self._all_indexes:
            if old is None or index.same is None or not index.same(old, obj):
                index.put(key, obj)

    def _unset(self, key: Request) -> None:
        if self._objects.pop(key, None) is not None:
            for index in self._all_indexes:
                index.remove(key)
