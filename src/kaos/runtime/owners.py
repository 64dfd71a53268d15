"""Owner references, with the refusals that save a child from the garbage collector.

Guarantees: a reference that the garbage collector would treat as dangling (and so delete the child)
is refused when it is built: an owner in another namespace, a namespaced owner of a cluster-scoped
child, an owner that has no uid yet; and so is a second controller.
"""

from collections.abc import Mapping
from typing import Any

from kaos.runtime.codec import Object, OwnerReference


def owner_reference(owner: Object, *, controller: bool = True) -> dict[str, Any]:
    """The entry for ``metadata.ownerReferences`` of a child."""
    if not owner.uid:
        raise ValueError(f"{owner.kind} {owner.key} has no uid: only an object read back can own")
    reference: dict[str, Any] = {
        "apiVersion": owner.api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
    }
    if controller:
        reference |= {"controller": True, "blockOwnerDeletion": True}
    return reference


def set_controller_reference(owner: Object, child: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the child's body that says who controls it.

    Raises:
        ValueError: When the child is in another namespace, or is cluster-scoped while its owner is
            not, or has another controller already.
    """
    metadata = dict(child.get("metadata") or {})
    namespace = metadata.get("namespace", "")
    what = f"{child.get('kind')} {metadata.get('name')}"
    if owner.namespace and namespace != owner.namespace:
        where = f"namespace {namespace!r}" if namespace else "no namespace"
        raise ValueError(
            f"{what} in {where} cannot be owned by {owner.kind} {owner.key}: "
            "an owner must be in the namespace of its child or be cluster-scoped"
        )
    reference = owner_reference(owner)
    others = [r for r in metadata.get("ownerReferences") or [] if r.get("uid") != owner.uid]
    for other in others:
        if other.get("controller"):
            raise ValueError(
                f"{what} is already controlled by {other.get('kind')} {other.get('name')}"
            )
    metadata["ownerReferences"] = [*others, reference]
    return {**child, "metadata": metadata}


def is_controlled_by(child: Object, owner: Object) -> bool:
    """Whether this very owner (by uid) controls the child."""
    found = child.metadata.controller
    return found is not None and found.uid == owner.uid


def controller_of(child: Object) -> OwnerReference | None:
    """The child's controller, if it has one."""
    return child.metadata.controller
