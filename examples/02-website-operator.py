"""A Website is a Deployment behind a Service, and says in its status whether it can be visited.

The image must listen on the given port. The children are compared with what is there and written
only where they differ; whoever changes or deletes one of them by hand sees it put right.
"""

from typing import Any

from pydantic import BaseModel, Field

from kaos.runtime import (
    DEPLOYMENT,
    SERVICE,
    ApplySet,
    Controller,
    CustomResource,
    Manager,
    Request,
    condition,
    merge_conditions,
    run,
)


class WebsiteSpec(BaseModel):
    image: str
    port: int = Field(default=80, ge=1, le=65535)
    replicas: int = Field(default=1, ge=0)


class Website(CustomResource):
    """A website."""

    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Website", "websites"
    spec: WebsiteSpec


def children(name: str, namespace: str, spec: WebsiteSpec) -> list[dict[str, Any]]:
    """What a website consists of: a pure function, so it is tested by comparing dicts."""
    labels = {"app.kubernetes.io/name": "website", "app.kubernetes.io/instance": name}
    container = {
        "name": "web",
        "image": spec.image,
        "ports": [{"name": "http", "containerPort": spec.port}],
        "readinessProbe": {"tcpSocket": {"port": "http"}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    deployment = {
        "replicas": spec.replicas,
        "selector": {"matchLabels": labels},
        "template": template,
    }
    service = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    metadata = {"labels": labels}
    return [
        DEPLOYMENT.body(name, namespace, metadata=metadata, spec=deployment),
        SERVICE.body(name, namespace, metadata=metadata, spec=service),
    ]


class Websites:
    """Keeps the children of websites, and their status."""

    def __init__(self, manager: Manager) -> None:
        self.client, self.cache, self.events = manager.client, manager.cache, manager.events
        self.children = ApplySet(self.client, self.cache, kinds=[DEPLOYMENT, SERVICE])

    async def reconcile(self, request: Request, /) -> None:
        site = self.cache.get(Website, request.name, request.namespace)
        if site is None or site.deleting:
            return  # the garbage collector takes the children
        spec = site.as_model(Website).spec
        applied = await self.children.apply(site, children(site.name, site.namespace, spec))
        if applied.written:
            self.events.event(site, type="Normal", reason="Applied", note="children were written")
        ready = applied.objects[0].status.get("readyReplicas", 0)
        now = condition(
            "Ready",
            ready >= spec.replicas,
            "Serving" if ready >= spec.replicas else "Starting",
            f"{ready} of {spec.replicas} replicas are ready",
            generation=site.metadata.generation,
        )
        old = site.status.get("conditions", [])
        status = {"readyReplicas": ready, "conditions": merge_conditions(old, [now])}
        if status != site.status:
            await self.client.patch(
                Website, site.name, site.namespace, {"status": status}, subresource="status"
            )


def websites(manager: Manager) -> Controller:
    owns = [DEPLOYMENT, SERVICE]
    return Controller("websites", Websites(manager), for_=Website, owns=owns, workers=4)


if __name__ == "__main__":
    run(websites, crds=[Website])
