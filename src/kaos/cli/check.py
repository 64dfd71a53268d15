"""Checks of manifests before anything starts: a typo is found at once, with its line.

Guaranteed: for our own kinds, a field that the CRD does not have is reported with its path, place
and the nearest name there is, and a value the model refuses with its place. For other kinds only
the kind's name is checked. All problems of all files are reported at once.

Not guaranteed: completeness. The API server has the last word, and says so when applied.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic

from kaos.api import GROUP, MODELS, VERSION, CustomResource, crd
from kaos.cli.errors import UsageError
from kaos.cli.manifests import Manifest, Path_

OURS: dict[str, type[CustomResource]] = {model.KIND: model for model in MODELS}
API_VERSION = f"{GROUP}/{VERSION}"
# Kinds of a Kubernetes cluster that belong into a manifest beside ours, under their API version.
OTHERS = {
    "v1": (
        "ConfigMap", "Namespace", "PersistentVolumeClaim", "Pod", "Secret", "Service",
        "ServiceAccount",
    ),
    "apps/v1": ("Deployment",),
    "apiextensions.k8s.io/v1": ("CustomResourceDefinition",),
}  # fmt: skip


def check(manifests: Iterable[Manifest]) -> None:
    """Refuse what cannot be right.

    Raises:
        UsageError: one line for each problem.
    """
    manifests = list(manifests)
    problems = [problem for manifest in manifests for problem in _problems(manifest)]
    problems += _twice(manifests)
    if problems:
        raise UsageError("\n".join(problems))


def _problems(manifest: Manifest) -> Iterator[str]:
    model = OURS.get(manifest.kind)
    if model is None or manifest.api_version != API_VERSION:
        yield from _unknown_kind(manifest)
        return
    schema = crd(model)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    unknown = list(_unknown_fields(manifest, manifest.body, schema, ()))
    # A misspelled field that is required would be told of twice: first the spelling.
    yield from unknown or _refused(manifest, model)


def _unknown_kind(manifest: Manifest) -> Iterator[str]:
    kind, api_version = manifest.kind, manifest.api_version
    known = dict.fromkeys(OURS, API_VERSION)
    known |= {kind: version for version, kinds in OTHERS.items() for kind in kinds}
    group = api_version.partition("/")[0]
    if kind in known and known[kind] != api_version:
        same_group = group == known[kind].partition("/")[0]
        if kind in OURS or same_group or "/" not in api_version:
            where = manifest.where(["apiVersion"])
            yield f"{where}: {kind} has apiVersion {known[kind]}, not {api_version}"
    elif kind not in known and (api_version in known.values() or group == GROUP):
        candidates = [name for name, of in known.items() if of == api_version] or list(known)
        where = manifest.where(["kind"])
        yield f"{where}: unknown kind {kind}{nearest(kind, candidates or known)}"


def _unknown_fields(
    manifest: Manifest, value: Any, schema: Mapping[str, Any], path: Path_
) -> Iterator[str]:
    if isinstance(value, dict):
        fields: Mapping[str, Any] | None = schema.get("properties")
        rest = schema.get("additionalProperties")
        if fields is None and not isinstance(rest, dict):
            return  # an object whose fields the schema leaves open, like metadata
        for name, inner in value.items():
            here = (*path, str(name))
            if fields is not None and name in fields:
                yield from _unknown_fields(manifest, inner, fields[name], here)
            elif isinstance(rest, dict):
                yield from _unknown_fields(manifest, inner, rest, here)
            elif not schema.get("x-kubernetes-preserve-unknown-fields"):
                yield (
                    f"{manifest.where(here)}: {manifest.kind} has no field {dotted(here)}"
                    f"{nearest(str(name), fields or ())}"
                )
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_fields(manifest, item, schema.get("items") or {}, (*path, index))


def _refused(manifest: Manifest, model: type[CustomResource]) -> Iterator[str]:
    try:
        model.model_validate(manifest.body)
    except pydantic.ValidationError as error:
        for detail in error.errors(include_url=False, include_context=False):
            path: Path_ = detail["loc"]
            words = detail["msg"].removeprefix("Value error, ")
            text = "is required" if detail["type"] == "missing" else words
            what = dotted(path)
            what = f"{what} {text}" if text == "is required" else f"{what}: {text}"
            what = what.removeprefix(": ")  # a rule of the whole object names its fields itself
            yield f"{manifest.where(path)}: {manifest.kind} {manifest.name}: {what}"


def _twice(manifests: Iterable[Manifest]) -> Iterator[str]:
    first: dict[tuple[str, str, str], Manifest] = {}
    for manifest in manifests:
        key = (manifest.kind, manifest.namespace or "default", manifest.name)
        before = first.setdefault(key, manifest)
        if before is not manifest:
            yield (
                f"{manifest.where()}: {manifest.kind} {manifest.name} is defined a second time; "
                f"the first is at {before.where()}"
            )


def nearest(word: str, names: Iterable[str]) -> str:
    """The words " (did you mean …?)" when something is near, the list when it is short."""
    names = sorted(names)
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {lowered[close[0]]}?)"
    return f" (there are: {', '.join(names)})" if names else ""


def dotted(path: Path_) -> str:
    """``spec.config.env[0].value``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
