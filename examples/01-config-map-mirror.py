"""A Mirror keeps copies of a ConfigMap: they follow their source, and go when the Mirror goes."""

from pydantic import BaseModel

from kaos import runtime
from kaos.runtime import CONFIG_MAP


class MirrorSpec(BaseModel):
    source: str
    copies: list[str]


class Mirror(runtime.CustomResource):
    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Mirror", "mirrors"
    spec: MirrorSpec


def mirrors(manager: runtime.Manager) -> runtime.Controller:
    cache = manager.cache

    async def reconcile(request: runtime.Request) -> runtime.Result | None:
        if mirror := cache.get(Mirror, request.name, request.namespace):
            spec = mirror.as_model(Mirror).spec
            if source := cache.get(CONFIG_MAP, spec.source, mirror.namespace):
                data = source.get("data")
                copies = [CONFIG_MAP.body(n, mirror.namespace, data=data) for n in spec.copies]
                return runtime.Result(children=copies)
        return None

    def followers(source: runtime.Object) -> list[runtime.Request]:
        known = cache.list(Mirror, source.namespace)
        return [mirror.key for mirror in known if mirror.spec["source"] == source.name]

    sources = [runtime.Watches(CONFIG_MAP, followers)]
    return runtime.Controller("mirror", reconcile, for_=Mirror, owns=[CONFIG_MAP], watches=sources)


if __name__ == "__main__":
    runtime.run(mirrors, crds=[Mirror])
