"""What a client sends and wants to get: media types of bodies and answers.

Guarantees that JSON, YAML and (for built-in kinds) protobuf bodies are read, and
that a client which prefers protobuf gets JSON, its next choice.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from kaos.local.apiserver import protobuf
from kaos.local.apiserver.errors import bad_request, unsupported_media_type

JSON = "application/json"
YAML = "application/yaml"
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The form of the answer: ``shape`` is the ``as`` parameter ("" for the object itself)."""

    shape: str = ""
    version: str = ""
    include: str = "Metadata"  # what a table carries of its objects

    @classmethod
    def of(cls, accept: str, shapes: frozenset[str], include: str = "Metadata") -> "Wanted":
        """The first form in an Accept header that can be given; the plain one else."""
        for media, parameters in _parts(accept):
            shape = parameters.get("as", "")
            if media in {JSON, "*/*"} and (not shape or shape in shapes):
                return cls(shape, parameters.get("v", ""), include)
        return cls()


def _parts(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        yield media.lower(), {name: value for name, _, value in pairs}


def media_type(content_type: str) -> str:
    """The media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def parse_body(raw: bytes, content_type: str) -> tuple[Any, list[str]]:
    """Read a JSON or YAML body; returns it and the paths of fields that came twice.

    Raises:
        StatusError: 415 for other media types, 400 for what cannot be read.
    """
    media = media_type(content_type) or JSON
    if media == protobuf.MEDIA_TYPE:
        try:
            return protobuf.decode_protobuf(raw), []
        except protobuf.ProtobufError as error:
            raise bad_request(f"the body of the request cannot be read: {error}") from error
    if media in {YAML, APPLY_PATCH} and not raw.lstrip().startswith(b"{"):
        return _parse_yaml(raw)
    if media not in {JSON, YAML, *PATCHES}:
        raise unsupported_media_type((JSON, YAML, protobuf.MEDIA_TYPE))
    return _parse_json(raw)


class _Twice(dict[str, Any]):
    """An object of which some fields came more than once."""

    __slots__ = ("fields",)
    fields: list[str]


def _parse_json(raw: bytes) -> tuple[Any, list[str]]:
    doubles = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal doubles
        obj = dict(pairs)
        if len(obj) == len(pairs):
            return obj
        doubles = True
        seen: set[str] = set()
        marked = _Twice(obj)
        marked.fields = []
        for name, _ in pairs:
            if name in seen:
                marked.fields.append(name)
            seen.add(name)
        return marked

    try:
        body = json.loads(raw, object_pairs_hook=build)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body of the request is not valid JSON: {error}") from error
    return body, list(_doubles(body, "")) if doubles else []


def _doubles(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value, _Twice):
            yield from (f"{at}.{name}".removeprefix(".") for name in value.fields)
        for name, item in value.items():
            yield from _doubles(item, f"{at}.{name}".removeprefix("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _doubles(item, f"{at}[{index}]")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as JSON knows it: a date stays the string that it is."""


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _parse_yaml(raw: bytes) -> tuple[Any, list[str]]:
    try:
        # S506: the loader is the safe one, minus dates.
        return yaml.load(raw, Loader=_Loader), []  # noqa: S506
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise bad_request(f"the body of the request is not valid YAML: {error}") from error
