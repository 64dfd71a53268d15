"""The table of kinds that the API server serves.

Guarantees: a kind is found by path (group, version, plural) and by
group/version/kind; every change of the table bumps ``generation``, so that
documents computed from it (discovery, OpenAPI) can be cached by that number.
A kind added from a CustomResourceDefinition shadows a built-in one of the same
address and gives it back when the definition goes (the Gateway API is built in
here, and people install its definitions all the same).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

Convert = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers, as paths of field names."""

    spec_replicas: tuple[str, ...] = ("spec", "replicas")
    status_replicas: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind in one version, as the API serves it.

    Attributes:
        schema: The structural schema (OpenAPI v3) of a custom resource, else None.
        printer_columns: As in a definition's ``additionalPrinterColumns``.
        crd: The name of the definition that it came from; empty for a built-in kind.
        bucket: Where its objects are stored; all versions of a kind share one.
        storage_api_version: The apiVersion that stored objects carry.
        generation: Whether objects count changes of their spec in metadata.generation.
        to_storage: Converts an object of this version to the stored one, None: only apiVersion.
        from_storage: The way back.
    """

    group: str
    version: str
    kind: str
    list_kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    schema: dict[str, Any] | None = None
    printer_columns: tuple[Mapping[str, Any], ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    scale: Scale | None = None
    crd: str = ""
    bucket: str = ""
    storage_api_version: str = ""
    generation: bool = False
    to_storage: Convert | None = None
    from_storage: Convert | None = None

    @property
    def api_version(self) -> str:
        """The apiVersion of its objects: ``apps/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The name used in messages: ``deployments.apps``, ``pods``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def virtual(self) -> bool:
        """Whether nothing of it is stored (an access review is answered, not kept)."""
        return self.verbs == ("create",)

    @property
    def has_status(self) -> bool:
        """Whether status is written through a subresource of its own."""
        return "status" in self.subresources


class Registry:
    """The kinds served now."""

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self._builtin = {(k.group, k.version, k.plural): k for k in kinds}
        self._custom: dict[tuple[str, str, str], Kind] = {}
        self._paths: dict[tuple[str, str, str], Kind] = {}
        self._kinds: dict[tuple[str, str, str], Kind] = {}
        self.generation = 0
        self._rebuild()

    def _rebuild(self) -> None:
        self._paths = self._builtin | self._custom
        self._kinds = {(k.group, k.version, k.kind): k for k in self._paths.values()}
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        """The kind served at ``/apis/<group>/<version>/<plural>``."""
        return self._paths.get((group, version, plural))

    def find_kind(self, api_version: str, kind: str) -> Kind | None:
        """The kind that objects with this apiVersion and kind belong to."""
        group, _, version = api_version.rpartition("/")
        return self._kinds.get((group, version, kind))

    def kinds(self) -> Iterator[Kind]:
        """All kinds, built-in ones first, in the order they were added."""
        return iter(self._paths.values())

    def versions(self, group: str) -> list[str]:
        """The versions of a group, the preferred one first."""
        seen = dict.fromkeys(k.version for k in self._paths.values() if k.group == group)
        return sorted(seen, key=version_priority)

    def groups(self) -> list[str]:
        """The named groups (the core group is not one), in the order they were added."""
        return list(dict.fromkeys(k.group for k in self._paths.values() if k.group))

    def set_custom(self, crd: str, kinds: Iterable[Kind]) -> None:
        """Serve exactly these kinds for a definition; an empty list withdraws them."""
        rest = {address: k for address, k in self._custom.items() if k.crd != crd}
        rest.update({(k.group, k.version, k.plural): k for k in kinds})
        if rest != self._custom:
            self._custom = rest
            self._rebuild()


def version_priority(version: str) -> tuple[int, int, int, str]:
    """Sort key that puts v2 before v1 before v1beta1 before v1alpha1 before foo."""
    stages = {"": 0, "beta": 1, "alpha": 2}
    head = version.removeprefix("v")
    digits = head[: len(head) - len(head.lstrip("0123456789"))]
    rest = head[len(digits) :]
    stage = rest.rstrip("0123456789")
    if not version.startswith("v") or not digits or stage not in stages:
        return (3, 0, 0, version)
    minor = rest[len(stage) :]
    return (stages[stage], -int(digits), -int(minor or 0), version)
