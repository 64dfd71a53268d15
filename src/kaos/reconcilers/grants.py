"""References into another namespace, and the ReferenceGrants that allow them.

Guarantees: `namespace/name` is followed only when a ReferenceGrant of the Gateway API in that
namespace says that Agents of the other one may; without one, nothing of the target is told, not
even whether it exists. A grant that is taken back closes the way again, on the network too.
"""

from collections.abc import Iterable

from kaos.api import GROUP, Agent
from kaos.reconcilers.children.names import Ref
from kaos.runtime import Cache, Object, ResourceType

REFERENCE_GRANT = ResourceType(
    "gateway.networking.k8s.io", "v1beta1", "ReferenceGrant", "referencegrants"
)
"""The version that every release of the Gateway API serves."""


class Grants:
    """The grants in the cache.

    Args:
        cache: that watches ReferenceGrants, if the cluster has them.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def permits(self, kind: str, target: Ref, namespace: str) -> bool:
        """Whether Agents of a namespace may refer to a resource."""
        return target.namespace == namespace or namespace in self.guests(kind, target)

    def guests(self, kind: str, target: Ref) -> list[str]:
        """The other namespaces whose Agents may refer to a resource."""
        grants = self._cache.list(REFERENCE_GRANT, target.namespace)
        found = {ns for grant in grants for ns in _guests(grant, kind, target.name)}
        return sorted(found - {target.namespace})


def _guests(grant: Object, kind: str, name: str) -> Iterable[str]:
    spec = grant.spec
    if not any(
        (to.get("group"), to.get("kind")) == (GROUP, kind) and to.get("name") in (None, "", name)
        for to in spec.get("to") or ()
    ):
        return
    for source in spec.get("from") or ():
        if (source.get("group"), source.get("kind")) == (GROUP, Agent.KIND):
            yield str(source.get("namespace", ""))
