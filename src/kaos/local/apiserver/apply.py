"""Server-side apply, and the bookkeeping of who owns which field.

Guarantees the laws of the real thing: applying the same manifest twice changes
nothing; a field that a manager no longer applies goes, unless somebody else owns
it; changing a field of another manager is a conflict (409 with one cause per
field) unless forced, and takes the field from them; creates, updates and other
patches are recorded under their manager as well.

Simplified: sets written under another version of a kind are compared as they
stand (custom resources have no conversion here).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.fieldset import (
    BuiltinNode,
    Changes,
    DuplicateKeyError,
    Node,
    SchemaNode,
    Tree,
    applied_fields,
    compare,
    difference,
    intersection,
    item_keys,
    members,
    union,
)
from kaos.local.apiserver.metadata import timestamp
from kaos.local.apiserver.registry import Kind

Object = dict[str, Any]

_OLD_UPDATERS = 10
_META = (
    "name",
    "namespace",
    "creationTimestamp",
    "uid",
    "selfLink",
    "generation",
    "managedFields",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)
_NOT_OWNED: Tree = {
    "f:apiVersion": {},
    "f:kind": {},
    "f:metadata": {".": {}, **{f"f:{name}": {} for name in _META}},
}


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes: an entry of managedFields belongs to exactly this."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    @classmethod
    def of(cls, entry: Object) -> "Manager":
        """The manager of an entry."""
        return cls(
            entry.get("manager", ""),
            entry.get("operation", ""),
            entry.get("apiVersion", ""),
            entry.get("subresource", ""),
        )

    def shown(self) -> str:
        """The manager in the words of a conflict."""
        text = f'"{self.name}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        if self.operation == "Update":
            text += f" using {self.api_version}"
        return text


Owners = dict[Manager, tuple[str, Tree]]  # since when, which fields


def root_node(kind: Kind) -> Node:
    """The place where an object of a kind starts."""
    return SchemaNode(kind.schema or {}, root=True) if kind.crd else BuiltinNode()


def owners(obj: Object) -> Owners:
    """Who owns what, as the object says."""
    return {
        Manager.of(entry): (entry.get("time") or "", entry.get("fieldsV1") or {})
        for entry in obj["metadata"].get("managedFields") or ()
        if entry
    }


def _set_owners(obj: Object, found: Owners) -> None:
    # Appliers first, then by time and name, as the real server sorts them.
    order = sorted(
        found.items(), key=lambda entry: (entry[0].operation, entry[1][0], entry[0].name)
    )
    entries = [
        {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            **({"time": time} if time else {}),
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
            **({"subresource": manager.subresource} if manager.subresource else {}),
        }
        for manager, (time, fields) in order
        if fields
    ]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def record_update(
    kind: Kind, old: Object | None, new: Object, name: str, subresource: str, now: datetime
) -> None:
    """Note a create or an update in ``new``, whose metadata carries the owners so far."""
    manager = Manager(name, "Update", kind.api_version, subresource)
    changes = compare(_bare(old or {"metadata": {}}), _bare(new), root_node(kind))
    written = _owned_part(kind, union(changes.added, changes.modified), subresource)
    found = _after(owners(new), manager, changes)
    time, mine = found.pop(manager, ("", {}))
    mine = union(difference(mine, changes.removed), written)
    if mine:
        found[manager] = (timestamp(now) if written or not time else time, mine)
    _set_owners(new, _capped(found))


def _after(found: Owners, manager: Manager, changes: Changes) -> Owners:
    """The owners after a change by one of them: the others lose what it touched."""
    touched = union(union(changes.added, changes.modified), changes.removed)
    if not touched:
        return dict(found)
    return {
        owner: (time, fields if owner == manager else difference(fields, touched))
        for owner, (time, fields) in found.items()
    }


def _capped(found: Owners) -> Owners:
    """Fold the oldest updaters into one, so that an object cannot grow without end."""
    updaters = sorted(
        (entry for entry in found.items() if entry[0].operation == "Update"),
        key=lambda entry: entry[1][0],
    )
    old = updaters[: max(0, len(updaters) - _OLD_UPDATERS)]
    if not old:
        return found
    kept = dict(found)
    for manager, (time, fields) in old:
        del kept[manager]
        ancient = Manager("ancient-changes", "Update", manager.api_version, manager.subresource)
        kept[ancient] = (time, union(kept.get(ancient, ("", {}))[1], fields))
    return kept


def _bare(obj: Object) -> Object:
    metadata = {name: v for name, v in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}


def _owned_part(kind: Kind, fields: Tree, subresource: str) -> Tree:
    """What of a set can be owned: nobody owns a uid, and status is apart from the rest."""
    if subresource == "status":
        return {"f:status": fields["f:status"]} if "f:status" in fields else {}
    fields = difference(fields, _NOT_OWNED)
    if kind.has_status:
        fields = {key: child for key, child in fields.items() if key != "f:status"}
    return fields


def apply(
    kind: Kind,
    live: Object,
    config: Object,
    name: str,
    *,
    force: bool,
    subresource: str,
    now: datetime,
) -> Object:
    """Merge a manifest into an object, for its manager; the result carries the new owners.

    Raises:
        StatusError: 409, fields of others would change and ``force`` is off; 500, the manifest
            states an item of a list twice.
    """
    node = root_node(kind)
    manager = Manager(name, "Apply", kind.api_version, subresource)
    found = owners(live)
    called = f"{config['metadata'].get('namespace', '')}/{config['metadata'].get('name', '')}"
    config = _applied_part(kind, config, subresource)
    time, last = found.get(manager, ("", {}))
    stated = _stated(kind, config, node, called)
    mine = _owned_part(kind, stated, subresource)
    found[manager] = (time, mine)
    before = _bare(live)
    merged: Object = _merge(before, config, node)
    # A name is nobody's, and still it is not to be taken away.
    owned = stated
    for _, fields in found.values():
        owned = union(owned, fields)
    merged = _prune(merged, last, owned, node)
    changes = compare(before, merged, node)
    if not force:
        _check_conflicts(found, manager, changes)
    found = _after(found, manager, changes)
    changed = changes.added or changes.modified or changes.removed
    found[manager] = (timestamp(now) if changed else time, mine)
    merged["metadata"] = dict(merged["metadata"])
    _set_owners(merged, found)
    return merged


def _applied_part(kind: Kind, config: Object, subresource: str) -> Object:
    """What of a manifest counts: its status at the subresource, all but the status elsewhere."""
    if subresource == "status":
        return {name: v for name, v in config.items() if name == "status"}
    return {
        name: value
        for name, value in config.items()
        if not (name == "status" and kind.has_status) and name not in {"apiVersion", "kind"}
    }


def _stated(kind: Kind, config: Object, node: Node, called: str) -> Tree:
    """The fields of a manifest; which states an item twice is refused in the real server's way."""
    try:
        return applied_fields(config, node)
    except DuplicateKeyError as error:
        what = f"({called}; {kind.api_version}, Kind={kind.kind})"
        told = f"failed to create typed patch object {what}: {error}"
        raise StatusError(500, "InternalError", told) from error


def _check_conflicts(found: Owners, manager: Manager, changes: Changes) -> None:
    changed = union(changes.modified, changes.added)
    conflicts = [
        (owner.shown(), path)
        for owner, (_, fields) in found.items()
        if owner != manager
        for path in sorted(members(intersection(fields, changed)))
    ]
    if not conflicts:
        return
    if len(conflicts) == 1:
        told = "1 conflict: conflict with {}: {}".format(*conflicts[0])
    else:
        lines = []
        for owner in sorted({owner for owner, _ in conflicts}):
            lines.append(f"conflicts with {owner}:")
            lines += [f"- {path}" for other, path in conflicts if other == owner]
        told = f"{len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {owner}",
            "field": path,
        }
        for owner, path in conflicts
    ]
    raise StatusError(409, "Conflict", f"Apply failed with {told}", details={"causes": causes})


def _merge(live: Any, config: Any, node: Node) -> Any:
    if isinstance(config, dict) and isinstance(live, dict) and not node.atomic:
        result = dict(live)
        for name, value in config.items():
            result[name] = _merge(live.get(name), value, node.child(name))
        return result
    if isinstance(config, list) and isinstance(live, list) and node.list_type.sort != "atomic":
        return _merge_items(live, config, node)
    return config


def _merge_items(live: list[Any], config: list[Any], node: Node) -> list[Any]:
    """The manifest's order for the items it names; the others stay where they are."""
    before = dict(zip(item_keys(live, node), live, strict=True))
    after = dict(zip(item_keys(config, node), config, strict=True))
    result: list[Any] = []
    named = list(after)
    for key, item in before.items():
        if key not in after:
            result.append(item)
        elif key == next((name for name in named if name in before), None):
            # Of the items that both have, this is the manifest's next: now those before it.
            while named:
                name = named.pop(0)
                result.append(_merge(before.get(name), after[name], node.item()))
                if name == key:
                    break
    result += [_merge(before.get(name), after[name], node.item()) for name in named]
    return result


def _prune(value: Any, last: Tree, owned: Tree, node: Node) -> Any:
    """Take out what the manager applied last time and nobody owns any more."""
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            key = f"f:{name}"
            if key not in last:
                result[name] = item
            elif key in owned:
                result[name] = _prune(item, last[key], owned[key], node.child(name))
        return result
    if isinstance(value, list) and node.list_type.sort != "atomic":
        return [
            _prune(item, last[key], owned[key], node.item()) if key in last else item
            for key, item in zip(item_keys(value, node), value, strict=True)
            if key not in last or key in owned
        ]
    return value
