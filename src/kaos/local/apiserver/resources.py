"""The verbs on stored objects: get, list, create, update, patch and the subresources.

Guarantees the order of a real write: shape, namespace, defaults, schema, rules,
optimistic lock, generation, field managers, store; a write that changes nothing
leaves the resourceVersion alone; ``dryRun`` runs everything but the store.
Synchronous and single threaded on purpose: between reading an object and
writing it nothing else can happen.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from kaos.local.apiserver import metadata as meta
from kaos.local.apiserver.admission import accept, check_lock, require_namespace, told
from kaos.local.apiserver.apply import apply, record_update
from kaos.local.apiserver.builtin_types import drop_nulls, unknown_fields, wrong_type
from kaos.local.apiserver.errors import (
    already_exists,
    bad_request,
    invalid,
    not_found,
    unsupported_media_type,
)
from kaos.local.apiserver.negotiation import (
    APPLY_PATCH,
    JSON_PATCH,
    MERGE_PATCH,
    STRATEGIC_PATCH,
)
from kaos.local.apiserver.options import WriteOptions
from kaos.local.apiserver.patches import json_patch, merge_patch
from kaos.local.apiserver.registry import Kind, Registry
from kaos.local.apiserver.scale import get_scale, set_scale
from kaos.local.apiserver.schema import StructuralSchema
from kaos.local.apiserver.services import ServiceAddresses
from kaos.local.apiserver.store import Event, Record, Store
from kaos.local.apiserver.strategic import strategic_patch
from kaos.local.apiserver.strategies import Strategies
from kaos.local.apiserver.versions import load_as, stored_as

Object = dict[str, Any]


_exact = msgspec.json.Encoder(order="deterministic").encode


class Written(NamedTuple):
    """What a write answers: the object now, whether it is new, what to warn of."""

    obj: Object
    created: bool = False
    warnings: tuple[str, ...] = ()


class Resources:
    """The verbs over a registry and a store.

    Args:
        registry: The kinds.
        store: The objects.
        now: The clock.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.registry = registry
        self.store = store
        self.now = now
        self._addresses = ServiceAddresses(
            lambda: (record.load() for record in store.current("/services"))
        )
        self._strategies = Strategies(self._addresses)
        self._schemas: dict[str, tuple[dict[str, Any], StructuralSchema]] = {}
        store.on_write.append(self._follow)

    def _follow(self, event: Event) -> None:
        if event.bucket == "/services":
            old = event.previous.load() if event.previous else None
            new = None if event.type == "DELETED" else event.record.load()
            self._addresses.written(old, new)

    # Reading

    def record(self, kind: Kind, namespace: str, name: str) -> Record:
        """The current revision of an object.

        Raises:
            StatusError: 404.
        """
        found = self.store.get(kind.bucket, namespace, name)
        if found is None:
            raise not_found(kind, name)
        return found

    # Writing

    def create(
        self,
        kind: Kind,
        namespace: str,
        body: Any,
        options: WriteOptions,
        *,
        applied: bool = False,
    ) -> Written:
        """Create an object; ``body`` is taken over and must not be used again."""
        obj = accept(kind, namespace, "", body)
        if obj["metadata"].get("resourceVersion") not in {None, "", "0"}:
            raise bad_request("resourceVersion should not be set on objects to be created")
        require_namespace(
            self.registry, self.store, kind, namespace, obj["metadata"].get("name") or ""
        )
        meta.prepare_create(kind, obj, namespace, self.now())
        warnings = self._complete(kind, obj, None, options)
        name = obj["metadata"]["name"]
        if self.store.get(kind.bucket, namespace, name) is not None:
            raise already_exists(kind, name)
        if not applied:
            record_update(kind, None, obj, options.manager, "", self.now())
        return Written(self._put(kind, obj, options), created=True, warnings=warnings)

    def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> Written:
        """Server-side apply: create the object or merge the manifest into it."""
        if isinstance(body, dict) and not (body.get("apiVersion") and body.get("kind")):
            raise bad_request("invalid object type: apiVersion and kind must be set")
        config = accept(kind, namespace, name, body)
        metadata = config["metadata"]
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        record = self.store.get(kind.bucket, namespace, name)
        if record is None and subresource:
            raise not_found(kind, name)
        live = load_as(kind, record) if record else {"metadata": {}}
        if record and (metadata.get("resourceVersion") or metadata.get("uid")):
            check_lock(kind, config, live)
        merged = apply(
            kind,
            live,
            config,
            options.manager,
            force=options.force,
            subresource=subresource,
            now=self.now(),
        )
        if record is None:
            merged.update(apiVersion=kind.api_version, kind=kind.kind)
            merged["metadata"]["name"] = name
            return self.create(kind, namespace, merged, options, applied=True)
        return self._replace(kind, record, merged, options, subresource, applied=True)

    def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        body: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> Written:
        """Replace an object, or its status."""
        old = self.record(kind, namespace, name)
        if subresource == "scale":
            return self._set_scale(kind, old, body, options)
        obj = accept(kind, namespace, name, body)
        return self._replace(kind, old, obj, options, subresource)

    def _replace(
        self,
        kind: Kind,
        record: Record,
        obj: Object,
        options: WriteOptions,
        subresource: str,
        *,
        applied: bool = False,
        scaled: bool = False,
    ) -> Written:
        """Write ``obj`` over ``record``; ``applied``: the field managers are worked out already."""
        old = load_as(kind, record)
        owned = obj["metadata"].get("managedFields")
        if not applied:
            check_lock(kind, obj, old)
        if subresource == "finalize":
            obj = {**old, "metadata": dict(old["metadata"]), "spec": obj.get("spec") or {}}
        elif subresource:
            status = obj.get("status")
            obj = {**old, "metadata": dict(old["metadata"]), "status": status}
            if status is None:
                del obj["status"]
        meta.prepare_update(obj, old)
        _set_managed_fields(obj, old, owned)
        warnings = self._complete(kind, obj, old, options, subresource)
        meta.bump_generation(kind, obj, old)
        if _same(obj, old):
            return Written(old, warnings=warnings)
        if not applied:
            through = "scale" if scaled else subresource
            record_update(kind, old, obj, options.manager, through, self.now())
        if _finished(kind, obj):
            return Written(self.remove(kind, record, obj, dry_run=options.dry_run), False, warnings)
        return Written(self._put(kind, obj, options), warnings=warnings)

    def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        sort: str,
        patch: Any,
        options: WriteOptions,
        subresource: str = "",
    ) -> Written:
        """Change an object by a patch of the given media type."""
        record = self.record(kind, namespace, name)
        old = load_as(kind, record)
        if subresource == "scale":
            old = get_scale(kind, old)
        obj = _patched(kind, sort, old, patch)
        if subresource == "scale":
            return self._set_scale(kind, record, obj, options)
        return self._replace(kind, record, accept(kind, namespace, name, obj), options, subresource)

    def _set_scale(self, kind: Kind, record: Record, scale: Any, options: WriteOptions) -> Written:
        obj = load_as(kind, record)
        set_scale(kind, obj, scale)
        written = self._replace(kind, record, obj, options, "", scaled=True)
        return Written(get_scale(kind, written.obj), warnings=written.warnings)

    def remove(self, kind: Kind, record: Record, final: Object, *, dry_run: bool = False) -> Object:
        """Take an object out of the store; ``final`` is how it looks in its last event."""
        if not dry_run:
            self.store.delete(kind.bucket, *record.key, stored_as(kind, final))
        return final

    def rewrite(self, kind: Kind, record: Record, change: Callable[[Object], None]) -> Object:
        """Change an object from inside the server (finalizers, deletion mark), unvalidated."""
        obj = load_as(kind, record)
        change(obj)
        if _finished(kind, obj):
            return self.remove(kind, record, obj)
        return self._put(kind, obj, WriteOptions())

    def _put(self, kind: Kind, obj: Object, options: WriteOptions) -> Object:
        if not options.dry_run:
            metadata = obj["metadata"]
            stored = stored_as(kind, obj)
            place = (metadata.get("namespace", ""), metadata["name"])
            self.store.put(kind.bucket, *place, stored)
        return obj

    # Steps of a write

    def _complete(
        self,
        kind: Kind,
        obj: Object,
        old: Object | None,
        options: WriteOptions,
        subresource: str = "",
    ) -> tuple[str, ...]:
        """Default and validate an object; returns warnings.

        Raises:
            StatusError: 422 with every cause.
        """
        schema = self._schema(kind)
        unknown: list[str] = []
        if not subresource:
            drop_nulls(kind.api_version, kind.kind, obj)
        if schema is not None:
            unknown = schema.prune(obj)
        elif wrong := wrong_type(kind.api_version, kind.kind, obj):
            where = f'{kind.kind} in version "{kind.version}"'
            raise bad_request(f"{where} cannot be handled as a {kind.kind}: {wrong}")
        elif options.validation in {"Strict", "Warn"}:
            unknown = unknown_fields(kind.api_version, kind.kind, obj)
        warnings = told(kind, [f'unknown field "{path}"' for path in unknown], options)
        if not subresource:
            self._strategies.prepare(kind, obj, old)
        causes = meta.validate(kind, obj, old)
        if schema is not None:
            schema.default(obj)
            causes += schema.validate(obj, old)
        if not subresource:
            causes += self._strategies.validate(kind, obj, old)
        if causes:
            raise invalid(kind, obj["metadata"].get("name") or "", causes)
        if not subresource:
            self._strategies.finish(kind, obj, meta.timestamp(self.now()))
        return warnings

    def _schema(self, kind: Kind) -> StructuralSchema | None:
        if kind.schema is None:
            return None
        known = self._schemas.get(kind.resource + kind.version)
        if known is None or known[0] is not kind.schema:
            known = (kind.schema, StructuralSchema(kind.schema))
            self._schemas[kind.resource + kind.version] = known
        return known[1]


def _patched(kind: Kind, sort: str, old: Object, patch: Any) -> Any:
    if sort == JSON_PATCH:
        return json_patch(old, patch)
    if sort == STRATEGIC_PATCH and not kind.crd:
        return strategic_patch(old, patch)
    if sort == MERGE_PATCH:
        return merge_patch(old, patch)
    accepted = [JSON_PATCH, MERGE_PATCH, APPLY_PATCH]
    raise unsupported_media_type(accepted if kind.crd else [*accepted, STRATEGIC_PATCH])


def _set_managed_fields(obj: Object, old: Object, given: Any) -> None:
    """Who leaves managedFields out does not mean to lose them; ``[{}]`` does."""
    metadata = obj["metadata"]
    if not given:
        given = old["metadata"].get("managedFields")
    entries = [entry for entry in given or () if entry]
    if entries:
        metadata["managedFields"] = entries
    else:
        metadata.pop("managedFields", None)


def _same(new: Object, old: Object) -> bool:
    # Python takes 1 for true; the encoded form does not.
    return new == old and _exact(new) == _exact(old)


def _finished(kind: Kind, obj: Object) -> bool:
    """Whether a deleted object has nothing left to wait for."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    if kind.resource == "namespaces":
        return not (obj.get("spec") or {}).get("finalizers")
    return not metadata.get("deletionGracePeriodSeconds")
