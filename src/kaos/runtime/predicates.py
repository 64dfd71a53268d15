"""Which changes are worth a reconcile.

A predicate gets the old and the new object; old is None for a creation, new for a deletion. Changes
that the controller's own reconcile of the same object wrote never reach it.

`spec_changed`, the default for a controller's own kind, passes:

* every creation and deletion;
* a change of generation (the spec changed; most servers also bump it at a request to delete);
* a change of deletionTimestamp, finalizers, labels, annotations or owner references, none of which
  is sure to bump the generation;
* any change to an older version: the server's state was restored from a backup, and what was done
  since has to be done again;
* any change at all when the object has no generation (ConfigMaps, Secrets, and Pods of servers
  before 1.35), because nothing else tells there what changed.

It holds back what a controller writes most: status. A controller that acts on the status of its own
kind (of Pods, say) uses `anything`.
"""

from kaos.runtime.codec import Object


def anything(old: Object | None, new: Object | None) -> bool:  # noqa: ARG001
    """Every change."""
    return True


def spec_changed(old: Object | None, new: Object | None) -> bool:
    """Everything but changes of status alone; see the module."""
    if old is None or new is None:
        return True
    was, now = old.metadata, new.metadata
    if not now.generation:
        return True
    return (
        was.generation != now.generation
        or new.version < old.version
        or was.deletion_timestamp != now.deletion_timestamp
        or was.finalizers != now.finalizers
        or was.labels_ != now.labels_
        or was.annotations_ != now.annotations_
        or was.owner_references != now.owner_references
    )


def content_changed(old: Object | None, new: Object | None) -> bool:
    """Everything but changes of status alone, also of kinds without a generation."""
    if old is None or new is None:
        return True
    return _content(old) != _content(new)


def _content(obj: Object) -> tuple[object, ...]:
    meta = obj.metadata
    fields = {name: raw for name, raw in obj.fields().items() if name != "status"}
    named = (meta.uid, meta.labels_, meta.annotations_, meta.owner_references)
    return (*named, meta.finalizers, meta.deletion_timestamp, fields)


def generation_changed(old: Object | None, new: Object | None) -> bool:
    """Creations, deletions, and changes of the spec only."""
    if old is None or new is None:
        return True
    return old.metadata.generation != new.metadata.generation


def labels_changed(old: Object | None, new: Object | None) -> bool:
    """Creations, deletions, and changes of labels only."""
    if old is None or new is None:
        return True
    return old.metadata.labels_ != new.metadata.labels_


def annotations_changed(old: Object | None, new: Object | None) -> bool:
    """Creations, deletions, and changes of annotations only."""
    if old is None or new is None:
        return True
    return old.metadata.annotations_ != new.metadata.annotations_
