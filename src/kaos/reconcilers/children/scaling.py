"""How many pods: declared by the resource, and then left to whoever else scales the Deployment.

Guarantees: the number is applied when it is declared anew, and never fought over afterwards. What
was declared last stands in an annotation of the Deployment; while that is the same and the live
number is another one, somebody else scales (a hand with `kubectl scale`, an HPA of the user's), and
the number is left out of what is applied. Suspending is firm: zero is applied whatever others say.

Which failure taught it: two controllers that each write spec.replicas start and stop pods for ever.
"""

from kaos.api import Workload
from kaos.reconcilers.children.workload import Manifest
from kaos.runtime import Object

DECLARED = "kaos.tools/replicas"


def scaled(desired: Manifest, resource: Workload, live: Object | None) -> Manifest:
    """The Deployment with the number of pods that shall be applied, or with none.

    Args:
        desired: the Deployment as the builder made it, without a number.
        resource: the owner.
        live: the Deployment that there is.
    """
    spec = resource.spec
    declared = 0 if spec.suspend else spec.replicas
    result: Manifest = {
        **desired,
        "metadata": {**desired["metadata"], "annotations": {DECLARED: str(declared)}},
    }
    if not spec.suspend and live is not None:
        same = live.metadata.annotations.get(DECLARED) == str(declared)
        if same and live.spec.get("replicas") != declared:
            return result
    result["spec"] = {"replicas": declared, **desired["spec"]}
    return result
