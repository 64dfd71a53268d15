"""Strategic merge patch: what ``kubectl apply`` and ``kubectl edit`` send for built-in kinds.

Guarantees merging of lists by their key, the directives ``$patch`` (delete,
replace, merge), ``$deleteFromPrimitiveList``, ``$setElementOrder`` and
``$retainKeys``. Fields that are no lists with a key merge as in a JSON merge
patch. Custom resources have none of this (415), as on a real cluster.
"""

import copy
from typing import Any

from kaos.local.apiserver.errors import bad_request
from kaos.local.apiserver.listkeys import Path, patch_key

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"


def strategic_patch(target: Any, patch: Any, path: Path = ()) -> Any:
    """Apply a strategic merge patch.

    Raises:
        StatusError: 400, the patch is malformed.
    """
    if not isinstance(patch, dict):
        raise bad_request("a strategic merge patch is an object")
    return _merge(target if isinstance(target, dict) else {}, patch, path)


def _merge(target: dict[str, Any], patch: dict[str, Any], path: Path) -> dict[str, Any]:
    directive = patch.get("$patch")
    if directive == "replace":
        return {name: copy.deepcopy(v) for name, v in patch.items() if name != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"Unknown patch type: {directive!r}")
    result = dict(target)
    if "$retainKeys" in patch:
        kept = _directive_list(patch, "$retainKeys")
        result = {name: v for name, v in result.items() if name in kept}
    for name, value in patch.items():
        if not name.startswith("$"):
            _set(result, name, value, (*path, name))
    for name in patch:
        if name.startswith(_DELETE):
            field = name.removeprefix(_DELETE)
            gone = _directive_list(patch, name)
            result[field] = [item for item in result.get(field) or () if item not in gone]
    for name in patch:
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            order = _directive_list(patch, name)
            if isinstance(result.get(field), list):
                key = patch_key((*path, field))
                wanted = [_identity(item, key) for item in order]
                before = target.get(field)
                result[field] = _ordered(
                    result[field], wanted, key, before if isinstance(before, list) else []
                )
    return result


def _directive_list(patch: dict[str, Any], name: str) -> list[Any]:
    found = patch[name]
    if not isinstance(found, list):
        raise bad_request(f"{name}: want a list")
    return found


def _set(result: dict[str, Any], name: str, value: Any, path: Path) -> None:
    if value is None:
        result.pop(name, None)
    elif isinstance(value, dict):
        before = result.get(name)
        if value.get("$patch") == "delete":
            result.pop(name, None)
        else:
            result[name] = _merge(before if isinstance(before, dict) else {}, value, path)
    elif isinstance(value, list):
        key = patch_key(path)
        before = result.get(name)
        before = before if isinstance(before, list) else []
        if key is None:
            result[name] = [copy.deepcopy(i) for i in value if not _is_directive(i)]
        elif key:
            result[name] = _merge_items(before, value, key, path)
        else:
            result[name] = [*before, *(item for item in value if item not in before)]
    else:
        result[name] = value


def _is_directive(item: Any) -> bool:
    return isinstance(item, dict) and "$patch" in item


def _merge_items(before: list[Any], patch: list[Any], key: str, path: Path) -> list[Any]:
    if any(_is_directive(item) and item["$patch"] == "replace" for item in patch):
        return [copy.deepcopy(item) for item in patch if not _is_directive(item)]
    result = list(before)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item!r} does not contain declared merge key: {key}")
        places = [
            index
            for index, found in enumerate(result)
            if isinstance(found, dict) and found.get(key) == item[key]
        ]
        if item.get("$patch") == "delete":
            result = [found for index, found in enumerate(result) if index not in places]
        elif places:
            result[places[0]] = _merge(result[places[0]], item, path)
        else:
            result.append(_merge({}, item, path))
    return _ordered(result, [item[key] for item in patch], key, before)


def _identity(item: Any, key: str | None) -> Any:
    return item.get(key) if key and isinstance(item, dict) else item


def _ordered(items: list[Any], order: list[Any], key: str | None, before: list[Any]) -> list[Any]:
    """Items in the order asked for, the others among them by the order there was before."""
    was = [_identity(item, key) for item in before]
    left = sorted(
        (item for item in items if _identity(item, key) in order),
        key=lambda item: order.index(_identity(item, key)),
    )
    right = [item for item in items if _identity(item, key) not in order]
    result = []
    while left and right:
        mine, theirs = _identity(left[0], key), _identity(right[0], key)
        behind = mine in was and theirs in was and was.index(mine) > was.index(theirs)
        result.append(right.pop(0) if behind else left.pop(0))
    return [*result, *left, *right]
