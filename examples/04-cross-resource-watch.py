"""Deployments are rolled out anew when a ConfigMap that they use changes.

    kubectl annotate deployment web example.com/restart-on=settings,texts

No kind of our own: the controller is for Deployments, and watches ConfigMaps. Which Deployments a
ConfigMap concerns is answered by an index, at once, however many there are.
"""

import hashlib
from collections.abc import Iterable

from kaos.runtime import CONFIG_MAP, DEPLOYMENT, Controller, Manager, Object, Request, Watches, run

ANNOTATION = "example.com/restart-on"
HASH = "example.com/config-hash"


def used(deployment: Object) -> list[str]:
    """The ConfigMaps a Deployment names, as index keys."""
    names = deployment.metadata.annotations.get(ANNOTATION, "").split(",")
    return [f"{deployment.namespace}/{name.strip()}" for name in names if name.strip()]


class Restarts:
    def __init__(self, manager: Manager) -> None:
        self.client, self.cache = manager.client, manager.cache
        self.cache.add_index(DEPLOYMENT, "config", used)

    def users(self, config: Object) -> Iterable[Request]:
        """The Deployments that use a ConfigMap."""
        found = self.cache.by_index(DEPLOYMENT, "config", f"{config.namespace}/{config.name}")
        return [deployment.key for deployment in found]

    async def reconcile(self, request: Request, /) -> None:
        deployment = self.cache.get(DEPLOYMENT, request.name, request.namespace)
        if deployment is None or not (names := used(deployment)):
            return
        digest = hashlib.sha256()
        for name in names:
            config = self.cache.get(CONFIG_MAP, name.partition("/")[2], request.namespace)
            if config is None:
                return  # it comes later, or is a mistake: restarting would not help
            digest.update(config.raw("data") + config.raw("binaryData"))
        template = deployment.spec["template"]["metadata"]
        if template.get("annotations", {}).get(HASH) == digest.hexdigest():
            return
        # Only this one annotation is ours; whoever applies the rest does not undo it.
        metadata = {"annotations": {HASH: digest.hexdigest()}}
        spec = {"template": {"metadata": metadata}}
        await self.client.patch(DEPLOYMENT, request.name, request.namespace, {"spec": spec})


def restarts(manager: Manager) -> Controller:
    reconciler = Restarts(manager)
    watches = [Watches(CONFIG_MAP, reconciler.users)]
    return Controller("restarts", reconciler, for_=DEPLOYMENT, watches=watches)


if __name__ == "__main__":
    run(restarts, field_manager="restarts")
