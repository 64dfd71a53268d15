"""OpenAPI documents of the served kinds: one per group version (v3), one for all (v2).

Guarantees what kubectl looks for: every operation and schema names its kind
(``x-kubernetes-group-version-kind``), every write has the ``fieldValidation`` parameter
(without it kubectl checks objects itself, against v2), custom resources have their whole
schema with typed metadata, built-in ones the names and types of their fields
(``kubectl explain``).

Does not: describe the fields of built-in kinds, or say how their lists merge. So no
operation here names strategic merge patch, although the server takes it: kubectl would
compute such patches from these schemas, and without it uses the types it was compiled with.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from kaos.local.apiserver.builtin_types import parts_of, properties_of, schema_key
from kaos.local.apiserver.protobuf import message_name
from kaos.local.apiserver.registry import Kind

GVK: Final = "x-kubernetes-group-version-kind"
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
_PATCHES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
)
_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_TEXTS: Final = {"type": "object", "additionalProperties": {"type": "string"}}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


_TYPE_FIELDS: Final = {
    "apiVersion": _text("The group and version that this object's form belongs to."),
    "kind": _text("The sort of thing that this object is."),
}
_TIME: Final = {"format": "date-time"}

_OWNER_REFERENCE: Final = {
    "type": "object",
    "description": "An object that this one belongs to and goes with.",
    "required": ["apiVersion", "kind", "name", "uid"],
    "properties": {
        **_TYPE_FIELDS,
        "name": _text("The owner's name."),
        "uid": _text("The owner's uid."),
        "controller": {"type": "boolean", "description": "Whether the owner manages it."},
        "blockOwnerDeletion": {
            "type": "boolean",
            "description": "Whether the owner waits for it in a foreground deletion.",
        },
    },
}
_OBJECT_META: Final = {
    "type": "object",
    "description": "What every object carries: names, labels, owners, versions.",
    "properties": {
        "name": _text("Unique among its kind in its namespace; cannot change."),
        "generateName": _text("The beginning of a name that the server completes."),
        "namespace": _text("The namespace that the object lives in."),
        "labels": {**_TEXTS, "description": "Short texts to select objects by."},
        "annotations": {**_TEXTS, "description": "Texts of any size for tools and people."},
        "uid": _text("Unique for ever; made by the server."),
        "resourceVersion": _text("Changes with every write; opaque."),
        "generation": {
            "type": "integer",
            "format": "int64",
            "description": "Counts the changes of what is wanted.",
        },
        "creationTimestamp": _text("When the object was created.", **_TIME),
        "deletionTimestamp": _text("Set when deletion was asked for.", **_TIME),
        "deletionGracePeriodSeconds": {
            "type": "integer",
            "format": "int64",
            "description": "How long a deletion may take.",
        },
        "finalizers": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Who has to act before the object goes.",
            "x-kubernetes-list-type": "set",
        },
        "ownerReferences": {
            "type": "array",
            "items": {"$ref": f"#/components/schemas/{_META}.OwnerReference"},
            "description": "The objects that this one belongs to.",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
        },
        "managedFields": {
            "type": "array",
            "items": dict(_OPEN),
            "description": "Who has applied which fields.",
        },
        "selfLink": _text("Not used any more."),
    },
}
_LIST_META: Final = {
    "type": "object",
    "description": "What every list carries.",
    "properties": {
        "resourceVersion": _text("The state that the list shows; a watch starts there."),
        "continue": _text("Where the next page starts; empty on the last one."),
        "remainingItemCount": {"type": "integer", "format": "int64"},
    },
}
_SHARED: Final = {
    f"{_META}.ObjectMeta": _OBJECT_META,
    f"{_META}.OwnerReference": _OWNER_REFERENCE,
    f"{_META}.ListMeta": _LIST_META,
}
_META_REFS: Final = {
    "meta.ObjectMeta": f"#/components/schemas/{_META}.ObjectMeta",
    "meta.OwnerReference": f"#/components/schemas/{_META}.OwnerReference",
    "meta.ListMeta": f"#/components/schemas/{_META}.ListMeta",
}


def group_path(kind: Kind) -> str:
    """The kind's place in the v3 index: ``api/v1``, ``apis/apps/v1``."""
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def document_v3(kinds: Iterable[Kind], version: str) -> dict[str, Any]:
    """The OpenAPI v3 document of one group version."""
    schemas: dict[str, Any] = dict(_SHARED)
    paths: dict[str, Any] = {}
    for kind in kinds:
        name = schema_name(kind)
        schemas[name] = _schema(kind)
        schemas.update(_part_schemas(kind))
        if not kind.virtual:
            schemas[f"{name}List"] = _list_schema(kind)
        paths.update(_paths(kind))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{version}"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def definitions_v2(kinds: Iterable[Kind]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Name, description and kind of what v2 tells: that these kinds exist."""
    for kind in kinds:
        yield schema_name(kind), _description(kind), _gvk(kind)


def schema_name(kind: Kind) -> str:
    """The schema's name, by the convention of the real server."""
    group = kind.group or "core"
    if not kind.crd and "." not in group:
        return f"io.k8s.api.{group}.{kind.version}.{kind.kind}"
    parts = ".".join(reversed(group.split(".")))
    return f"{parts}.{kind.version}.{kind.kind}"


def _gvk(kind: Kind, suffix: str = "") -> dict[str, str]:
    return {"group": kind.group, "version": kind.version, "kind": kind.kind + suffix}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _described_ref(name: str, description: str) -> dict[str, Any]:
    # A $ref hides what stands beside it; the real server wraps it like this, too.
    return {"allOf": [_ref(name)], "description": description, "default": {}}


def _description(kind: Kind) -> str:
    given = (kind.schema or {}).get("description")
    return str(given or f"{kind.kind} of {kind.api_version}.")


def _schema(kind: Kind) -> dict[str, Any]:
    schema = dict(kind.schema or {})
    message = _message(kind)
    if message is not None:
        schema = {"properties": properties_of(message, _META_REFS)}
    elif kind.schema is None:
        content = {"spec": _OPEN, "status": _OPEN}
        schema = {"properties": content, "x-kubernetes-preserve-unknown-fields": True}
    return {
        **schema,
        "type": "object",
        "description": _description(kind),
        "properties": {
            **_TYPE_FIELDS,
            **schema.get("properties", {}),
            "metadata": _described_ref(f"{_META}.ObjectMeta", "Standard object's metadata."),
        },
        GVK: [_gvk(kind)],
    }


def _message(kind: Kind) -> str | None:
    return None if kind.crd else message_name(kind.api_version, kind.kind)


def _part_schemas(kind: Kind) -> Iterator[tuple[str, dict[str, Any]]]:
    message = _message(kind)
    for name in sorted(parts_of(message)) if message else ():
        if name not in _META_REFS:
            yield (
                schema_key(name),
                {
                    "type": "object",
                    "properties": properties_of(name, _META_REFS),
                },
            )


def _list_schema(kind: Kind) -> dict[str, Any]:
    return {
        "type": "object",
        "description": f"A list of {kind.kind}.",
        "required": ["items"],
        "properties": {
            **_TYPE_FIELDS,
            "metadata": _described_ref(f"{_META}.ListMeta", "Standard list metadata."),
            "items": {"type": "array", "items": _ref(schema_name(kind))},
        },
        GVK: [_gvk(kind, "List")],
    }


def _parameter(name: str, kind: str, description: str, where: str = "query") -> dict[str, Any]:
    found = {"name": name, "in": where, "description": description, "schema": {"type": kind}}
    return {**found, "required": True} if where == "path" else {**found, "uniqueItems": True}


_DRY_RUN: Final = _parameter("dryRun", "string", "All: check and answer, but keep nothing.")
_WRITE: Final = [
    _DRY_RUN,
    _parameter("fieldManager", "string", "Who writes, for managedFields."),
    _parameter("fieldValidation", "string", "Unknown and repeated fields: Ignore, Warn or Strict."),
]
_FORCE: Final = _parameter("force", "boolean", "Apply: take fields from other managers.")
_DELETE: Final = [
    _DRY_RUN,
    _parameter("gracePeriodSeconds", "integer", "How long the deletion may take."),
    _parameter("propagationPolicy", "string", "Orphan, Background or Foreground."),
]
_READ: Final = [_parameter("resourceVersion", "string", "How recent the answer must be.")]
_LIST: Final = [
    *_READ,
    _parameter("labelSelector", "string", "Only objects with these labels."),
    _parameter("fieldSelector", "string", "Only objects with these fields."),
    _parameter("limit", "integer", "The size of a page."),
    _parameter("continue", "string", "Where the page starts."),
    _parameter("watch", "boolean", "Stream the changes."),
    _parameter("allowWatchBookmarks", "boolean", "Send bookmarks on a watch."),
    _parameter("sendInitialEvents", "boolean", "Begin a watch with what there is."),
    _parameter("resourceVersionMatch", "string", "Exact or NotOlderThan."),
    _parameter("timeoutSeconds", "integer", "When to end."),
]
# verb → method, action, parameters, bodies
_ON_ALL: Final = {
    "list": ("get", "list", _LIST, ()),
    "create": ("post", "post", _WRITE, ("application/json", "application/yaml")),
    "deletecollection": ("delete", "deletecollection", [*_DELETE, *_LIST], ()),
}
_ON_ONE: Final = {
    "get": ("get", "get", _READ, ()),
    "update": ("put", "put", _WRITE, ("application/json", "application/yaml")),
    "patch": ("patch", "patch", [*_WRITE, _FORCE], _PATCHES),
    "delete": ("delete", "delete", _DELETE, ()),
}


def _paths(kind: Kind) -> Iterator[tuple[str, dict[str, Any]]]:
    prefix = f"/{group_path(kind)}"
    where = [_parameter("name", "string", "name of the object", "path")]
    all_of = f"{prefix}/{kind.plural}"
    if kind.namespaced:
        every = _operations(kind, {"list": _ON_ALL["list"]}, "AllNamespaces")
        yield all_of, every
        all_of = f"{prefix}/namespaces/{{namespace}}/{kind.plural}"
        where.insert(0, _parameter("namespace", "string", "namespace of the object", "path"))
    yield all_of, {**_operations(kind, _ON_ALL), "parameters": where[:-1]}
    if kind.virtual:
        return
    one = f"{all_of}/{{name}}"
    yield one, {**_operations(kind, _ON_ONE), "parameters": where}
    if kind.has_status:
        verbs = {verb: _ON_ONE[verb] for verb in ("get", "update", "patch")}
        yield f"{one}/status", {**_operations(kind, verbs, "Status"), "parameters": where}


def _operations(kind: Kind, verbs: dict[str, Any], suffix: str = "") -> dict[str, Any]:
    group = "".join(part.capitalize() for part in (kind.group or "core").split("."))
    found: dict[str, Any] = {}
    for verb, (method, action, parameters, bodies) in verbs.items():
        if verb not in kind.verbs:
            continue
        answer = schema_name(kind) + ("List" if verb == "list" else "")
        operation = {
            "operationId": f"{verb}{group}{kind.version.capitalize()}{kind.kind}{suffix}",
            "description": f"{verb} {kind.kind}",
            "parameters": parameters,
            "responses": {
                "200": {
                    "description": "OK",
                    "content": {"application/json": {"schema": _ref(answer)}},
                }
            },
            "x-kubernetes-action": action,
            GVK: _gvk(kind),
        }
        if bodies:
            body = _OPEN if verb == "patch" else _ref(schema_name(kind))
            content = {media: {"schema": body} for media in bodies}
            operation["requestBody"] = {"content": content, "required": True}
        found[method] = operation
    return found
