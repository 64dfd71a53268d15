"""Sets of fields, kept in the very form in which managedFields carries them.

A set is a FieldsV1 tree: a child that is empty is a member, a child with
children is one only if it has the child ".". Keys are ``f:name`` for fields,
``k:{…}`` for items of a list that is a map, ``v:…`` for members of a set.

Guarantees that the operations never change their arguments (they may share
parts with the result, so results are not to be changed either).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from kaos.local.apiserver.listkeys import (
    ListType,
    Path,
    builtin_atomic,
    builtin_list,
    item_defaults,
    schema_list,
)

Tree = dict[str, Any]
_MEMBER: Tree = {}
_encode = msgspec.json.Encoder(order="deterministic").encode

# Maps of a built-in kind whose keys are data, not fields.
_DATA = frozenset(
    {"labels", "annotations", "data", "binaryData", "stringData", "limits", "requests", "capacity"}
)
# Parts that the real server's structs always have, and that therefore nobody adds.
_STRUCTS = frozenset(
    {
        "spec",
        "status",
        "metadata",
        "template",
        "strategy",
        "updateStrategy",
        "containers",
        "names",
    }
)


@dataclass(frozen=True, slots=True)
class BuiltinNode:
    """A place in an object of a built-in kind (or in anybody's metadata)."""

    path: Path = ()

    def child(self, name: str) -> "BuiltinNode":
        """The place of a field."""
        return BuiltinNode((*self.path, name))

    def item(self) -> "BuiltinNode":
        """The place of a list's items."""
        return self

    def declares(self, name: str) -> bool:  # noqa: ARG002 - the answer is per map
        """Whether a field is one of the type, and not a key of a map."""
        return not self.path or self.path[-1] not in _DATA

    @property
    def atomic(self) -> bool:
        """Whether an object here is one value."""
        return bool(self.path) and builtin_atomic(self.path)

    @property
    def implied(self) -> bool:
        """Whether an object here is always there."""
        return bool(self.path) and self.path[-1] in _STRUCTS

    @property
    def list_type(self) -> ListType:
        """How a list here is to be understood."""
        return builtin_list(self.path)

    def key_defaults(self) -> dict[str, Any]:
        """What the keys of an item default to."""
        return item_defaults(self.path)


@dataclass(frozen=True, slots=True)
class SchemaNode:
    """A place in a custom resource, described by its schema."""

    schema: dict[str, Any]
    root: bool = False

    def child(self, name: str) -> "BuiltinNode | SchemaNode":
        """The place of a field."""
        if self.root and name == "metadata":
            return BuiltinNode(("metadata",))
        found = (self.schema.get("properties") or {}).get(name)
        if found is None:
            found = self.schema.get("additionalProperties")
        return SchemaNode(found if isinstance(found, dict) else {})

    def item(self) -> "SchemaNode":
        """The place of a list's items."""
        items = self.schema.get("items")
        return SchemaNode(items if isinstance(items, dict) else {})

    def declares(self, name: str) -> bool:
        """Whether a field is one of the type, and not a key of a map."""
        return self.root or name in (self.schema.get("properties") or {})

    @property
    def atomic(self) -> bool:
        """Whether an object here is one value."""
        return self.schema.get("x-kubernetes-map-type") == "atomic"

    @property
    def implied(self) -> bool:
        """Whether an object here is always there."""
        return self.root

    @property
    def list_type(self) -> ListType:
        """How a list here is to be understood."""
        return schema_list(self.schema)

    def key_defaults(self) -> dict[str, Any]:
        """What the keys of an item default to."""
        fields = (self.schema.get("items") or {}).get("properties") or {}
        return {name: field["default"] for name, field in fields.items() if "default" in field}


Node = BuiltinNode | SchemaNode


# Operations


def is_member(tree: Tree) -> bool:
    """Whether the place itself is in the set."""
    return not tree or "." in tree


def _joined(member: bool, children: Tree) -> Tree | None:
    if not children:
        return _MEMBER if member else None
    return {".": {}, **children} if member else children


def _children(tree: Tree) -> Iterator[tuple[str, Tree]]:
    return ((key, child) for key, child in tree.items() if key != ".")


def union(left: Tree, right: Tree) -> Tree:
    """What is in either set."""
    if not left or not right:
        return left or right
    result = dict(left)
    for key, child in _children(right):
        before = left.get(key)
        if before is None:
            result[key] = child
        elif before is not child:
            member = is_member(before) or is_member(child)
            # Of two members one may be a leaf: the children are then the other's.
            inner = dict(_children(union(before, child)))
            result[key] = _joined(member, inner)
    return result


def difference(left: Tree, right: Tree) -> Tree:
    """What is in the left set only; the children of what goes stay."""
    result: Tree = {}
    for key, child in _children(left):
        other = right.get(key)
        if other is None:
            result[key] = child
            continue
        member = is_member(child) and not is_member(other)
        kept = _joined(member, difference(child, other))
        if kept is not None:
            result[key] = kept
    return result


def intersection(left: Tree, right: Tree) -> Tree:
    """What is in both sets."""
    result: Tree = {}
    for key, child in _children(left):
        other = right.get(key)
        if other is not None:
            member = is_member(child) and is_member(other)
            kept = _joined(member, intersection(child, other))
            if kept is not None:
                result[key] = kept
    return result


def members(tree: Tree, at: str = "") -> Iterator[str]:
    """The members as paths in the words of messages: ``.spec.ports[port=80].name``."""
    for key, child in _children(tree):
        path = at + _shown(key)
        if is_member(child):
            yield path
        yield from members(child, path)


def _shown(key: str) -> str:
    sort, value = key[:2], key[2:]
    if sort == "f:":
        return f".{value}"
    if sort == "v:":
        return f"[={value}]"
    if sort == "i:":
        return f"[{value}]"
    pairs = msgspec.json.decode(value).items()
    return f"[{','.join(f'{name}={_encode(part).decode()}' for name, part in pairs)}]"


# From values to sets


def item_keys(items: list[Any], node: Node) -> list[str]:
    """The keys of a list's items, in order; the list is a set or a map."""
    sort, names = node.list_type
    if sort == "set":
        return [f"v:{_encode(item).decode()}" for item in items]
    defaults = node.key_defaults()
    keys = []
    for item in items:
        fields = {**defaults, **item} if isinstance(item, dict) else {}
        part = {name: fields[name] for name in names if name in fields}
        keys.append(f"k:{_encode(part).decode()}")
    return keys


class DuplicateKeyError(ValueError):
    """Two items of a list are the same one; the path is that of the list."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key, self.path = _shown(key), ""

    def __str__(self) -> str:
        return f"{self.path}: duplicate entries for key {self.key}"


def applied_fields(value: dict[str, Any], node: Node) -> Tree:
    """The fields that a manifest states.

    Raises:
        DuplicateKeyError: it states one item of a list twice.
    """
    result: Tree = {}
    for name, item in value.items():
        child = node.child(name)
        try:
            inner = _applied(item, child)
        except DuplicateKeyError as error:
            error.path = f".{name}{error.path}"
            raise
        if inner is None:
            continue
        if inner and not node.declares(name):
            inner = {".": {}, **inner}
        result[f"f:{name}"] = inner
    return result


def _applied(value: Any, node: Node) -> Tree | None:
    if isinstance(value, dict) and value and not node.atomic:
        return applied_fields(value, node)
    if isinstance(value, list) and node.list_type.sort != "atomic":
        if not value:
            return None
        inner: Tree = {}
        for key, item in zip(item_keys(value, node), value, strict=True):
            if key in inner:
                raise DuplicateKeyError(key)
            try:
                fields = applied_fields(item, node.item()) if isinstance(item, dict) else {}
            except DuplicateKeyError as error:
                error.path = _shown(key) + error.path
                raise
            inner[key] = {".": {}, **fields} if fields else _MEMBER
        return inner
    return _MEMBER


def _whole(value: Any, node: Node, *, item: bool = False) -> Tree:
    """A value with everything in it, as a change that brings or takes it."""
    inner: Tree = {}
    if isinstance(value, dict) and not node.atomic:
        for name, part in value.items():
            inner[f"f:{name}"] = _whole(part, node.child(name))
    elif isinstance(value, list) and node.list_type.sort != "atomic":
        for key, part in zip(item_keys(value, node), value, strict=True):
            inner[key] = _whole(part, node.item(), item=True)
    if not inner or (node.implied and not item):
        return inner
    return {".": {}, **inner}


@dataclass(slots=True)
class Changes:
    """What a write did, as sets."""

    added: Tree
    modified: Tree
    removed: Tree


def compare(old: dict[str, Any], new: dict[str, Any], node: Node) -> Changes:
    """What differs between two objects."""
    changes = Changes({}, {}, {})
    for name in new.keys() | old.keys():
        key = f"f:{name}"
        if name not in old:
            changes.added[key] = _whole(new[name], node.child(name))
        elif name not in new:
            changes.removed[key] = _whole(old[name], node.child(name))
        else:
            _note(changes, key, old[name], new[name], node.child(name))
    return changes


def _note(changes: Changes, key: str, old: Any, new: Any, node: Node) -> None:
    if old is new or (old == new and type(old) is type(new)):
        return
    if isinstance(old, dict) and isinstance(new, dict) and (old or new) and not node.atomic:
        inner = compare(old, new, node)
    elif isinstance(old, list) and isinstance(new, list) and node.list_type.sort != "atomic":
        inner = compare_items(old, new, node)
    else:
        changes.modified[key] = _MEMBER
        return
    for mine, theirs in (
        (changes.added, inner.added),
        (changes.modified, inner.modified),
        (changes.removed, inner.removed),
    ):
        if theirs:
            mine[key] = theirs


def compare_items(old: list[Any], new: list[Any], node: Node) -> Changes:
    """What differs between two lists whose items have keys."""
    changes = Changes({}, {}, {})
    before = dict(zip(item_keys(old, node), old, strict=True))
    after = dict(zip(item_keys(new, node), new, strict=True))
    for key in after.keys() | before.keys():
        if key not in before:
            changes.added[key] = _whole(after[key], node.item(), item=True)
        elif key not in after:
            changes.removed[key] = _whole(before[key], node.item(), item=True)
        else:
            _note(changes, key, before[key], after[key], node.item())
    return changes
