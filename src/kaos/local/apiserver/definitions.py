"""CustomResourceDefinitions as values: defaults, rules, conditions, and the kinds they define.

Guarantees that a definition which passes can be served, and that it says so in
its conditions as soon as it is stored. Conversion webhooks are refused.
"""

import re
from typing import Any

from kaos.local.apiserver.definition_form import malformed_definition
from kaos.local.apiserver.errors import (
    Cause,
    field_forbidden,
    field_immutable,
    field_invalid,
    field_required,
    field_unsupported,
)
from kaos.local.apiserver.registry import Kind, Scale
from kaos.local.apiserver.schema import StructuralSchema

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
DEFINITIONS_BUCKET = "apiextensions.k8s.io/customresourcedefinitions"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"

Object = dict[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")


def default_definition(crd: Object, _: Object | None) -> None:
    """Fill in names and conversion.

    Raises:
        ValueError: It is not of the form of a definition.
    """
    if why := malformed_definition(crd):
        raise ValueError(why)
    spec = crd.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind") or ""
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    spec.setdefault("conversion", {"strategy": "None"})
    for version in spec.get("versions") or ():
        for column in version.get("additionalPrinterColumns") or ():
            column.setdefault("priority", 0)
            if not column["priority"]:
                del column["priority"]


def validate_definition(crd: Object, old: Object | None) -> list[Cause]:
    """What is wrong with a definition about to be written."""
    spec = crd["spec"]
    names = spec["names"]
    causes = [
        field_required(f"spec.{field}") for field in ("group", "scope") if not spec.get(field)
    ]
    causes += [
        field_required(f"spec.names.{field}")
        for field in ("plural", "kind")
        if not names.get(field)
    ]
    if spec.get("scope") not in {"Namespaced", "Cluster", None}:
        causes.append(field_unsupported("spec.scope", spec["scope"], ["Cluster", "Namespaced"]))
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    if crd["metadata"].get("name") != wanted:
        text = 'must be spec.names.plural+"."+spec.group'
        causes.append(field_invalid("metadata.name", crd["metadata"].get("name"), text))
    if (spec["conversion"] or {}).get("strategy") != "None":
        text = "conversion webhooks are not supported by the embedded API server"
        causes.append(field_forbidden("spec.conversion.strategy", text))
    causes += _validate_versions(spec)
    if old is not None:
        causes += [
            field_immutable(f"spec.{field}", spec.get(field))
            for field in ("group", "scope")
            if spec.get(field) != old["spec"].get(field)
        ]
    return causes


def _validate_versions(spec: Object) -> list[Cause]:
    versions = spec.get("versions") or []
    causes = []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        text = "must have exactly one version marked as storage version"
        causes.append(field_invalid("spec.versions", versions, text))
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        shown = f"{at}.schema" if len(versions) > 1 else "spec.validation"
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", version.get("name") or ""):
            causes.append(field_required(f"{at}.name"))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if not schema:
            causes.append(field_required(f"{at}.schema.openAPIV3Schema", "schemas are required"))
        else:
            found = _validate_schema(schema, f"{shown}.openAPIV3Schema")
            causes += found or _validate_use(schema, f"{shown}.openAPIV3Schema")
    return causes


def _validate_use(schema: Object, at: str) -> list[Cause]:
    """What keeps a schema from being used: a pattern that is none, for instance."""
    try:
        StructuralSchema(schema)
    except ValueError as error:
        return [field_invalid(at, "schema", str(error).splitlines()[0])]
    return []


def _validate_schema(schema: Any, at: str) -> list[Cause]:
    """The rules of a structural schema that authors trip over."""
    if not isinstance(schema, dict):
        return [field_invalid(at, schema, "must be a schema")]
    causes = []
    free = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    if not schema.get("type") and not free:
        causes.append(field_required(f"{at}.type", "must not be empty for specified object fields"))
    elif schema.get("type") and schema["type"] not in _TYPES:
        causes.append(field_unsupported(f"{at}.type", schema["type"], _TYPES))
    if "$ref" in schema:
        causes.append(field_forbidden(f"{at}.$ref", "$ref is not supported"))
    if schema.get("uniqueItems"):
        causes.append(field_forbidden(f"{at}.uniqueItems", "uniqueItems cannot be set to true"))
    for name, field in (schema.get("properties") or {}).items():
        causes += _validate_schema(field, f"{at}.properties[{name}]")
    if "items" in schema:
        causes += _validate_schema(schema["items"], f"{at}.items")
    if isinstance(schema.get("additionalProperties"), dict):
        causes += _validate_schema(schema["additionalProperties"], f"{at}.additionalProperties")
    return causes


def kinds_of(crd: Object) -> list[Kind]:
    """The kinds that a definition asks to serve."""
    spec = crd["spec"]
    names = spec["names"]
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    return [
        _kind(crd["metadata"]["name"], spec, names, version, storage)
        for version in spec["versions"]
        if version.get("served")
    ]


def _kind(crd: str, spec: Object, names: Object, version: Object, storage: str) -> Kind:
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale")
    schema = version["schema"]["openAPIV3Schema"]
    if spec.get("preserveUnknownFields"):
        schema = {**schema, "x-kubernetes-preserve-unknown-fields": True}
    return Kind(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        list_kind=names["listKind"],
        plural=names["plural"],
        singular=names["singular"],
        short_names=tuple(names.get("shortNames") or ()),
        namespaced=spec["scope"] == "Namespaced",
        categories=tuple(names.get("categories") or ()),
        subresources=frozenset(subresources),
        schema=schema,
        printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
        scale=_scale(scale) if scale else None,
        crd=crd,
        bucket=f"{spec['group']}/{names['plural']}",
        storage_api_version=f"{spec['group']}/{storage}",
        generation=True,
    )


def _scale(scale: Object) -> Scale:
    def path(name: str) -> tuple[str, ...]:
        text: str = scale.get(name) or ""
        return tuple(text.lstrip(".").split(".")) if text else ()

    return Scale(path("specReplicasPath"), path("statusReplicasPath"), path("labelSelectorPath"))


def accepted_status(crd: Object, now: str) -> Object:
    """The status of a definition that is served."""
    spec = crd["spec"]
    status = crd.get("status") or {}
    storage = next(version["name"] for version in spec["versions"] if version.get("storage"))
    stored = list(status.get("storedVersions") or ())
    terminating = "deletionTimestamp" in crd["metadata"]
    conditions = [
        ("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        ("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
    ]
    if terminating:
        text = "CustomResource deletion is in progress"
        conditions.append(("Terminating", "True", "InstanceDeletionInProgress", text))
    before = {condition["type"]: condition for condition in status.get("conditions") or ()}
    return {
        **status,
        "acceptedNames": spec["names"],
        "conditions": [
            {
                "type": sort,
                "status": value,
                "reason": reason,
                "message": message,
                "lastTransitionTime": before.get(sort, {}).get("lastTransitionTime", now),
            }
            for sort, value, reason, message in conditions
        ],
        "storedVersions": stored if storage in stored else [*stored, storage],
    }
