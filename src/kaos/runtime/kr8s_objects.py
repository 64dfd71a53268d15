"""Cached objects as kr8s objects, for kr8s's verbs: scale, logs, exec, port-forward.

Guarantees: no request is made, and what is done to the kr8s object does not reach the cache. kr8s
is imported only here and only then.
Does not: belong into a hot path: wrapping one object takes kr8s about a millisecond.
Which failure taught the class of our own: kr8s guesses plurals, and a kind it looked up by a string
came back with the singular name as its kind.
"""

from typing import TYPE_CHECKING, Any

from kaos.runtime.codec import Object
from kaos.runtime.resources import BUILT_IN, Resource, ResourceType

if TYPE_CHECKING:
    from kr8s.asyncio.objects import APIObject


def to_kr8s(obj: Object, resource: Resource | None = None, *, api: Any = None) -> "APIObject":
    """An object of the cache or the client as an object of ``kr8s.asyncio``.

    Args:
        obj: The object.
        resource: Its kind; needed when neither kr8s nor this library knows its plural.
        api: The kr8s API to use; default: kr8s's own default.

    Raises:
        ValueError: When the plural is not known.
    """
    from kr8s.asyncio.objects import get_class, new_class  # noqa: PLC0415 - slow to import

    try:
        found = get_class(obj.kind, obj.api_version)
    except KeyError:
        known = BUILT_IN.get((obj.api_version, obj.kind))
        kind = ResourceType.of(resource) if resource is not None else known
        if kind is None:
            raise ValueError(
                f"kr8s does not know {obj.kind} in {obj.api_version}: pass its resource, too"
            ) from None
        found = new_class(
            kind.kind, kind.api_version, namespaced=kind.namespaced, plural=kind.plural
        )
    made: APIObject = found(obj.to_dict(), api=api)
    return made
