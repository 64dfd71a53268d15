"""What each kind watches, and whom a change concerns.

Guarantees: whatever a pass reads of the cluster is watched, so nothing has to be polled. Of Secrets
nothing but metadata is asked for (docs/decisions/0008), of pods only those of resources, and what
is said of their specs is not kept.
"""

from collections.abc import Iterable, Iterator

from kaos.api import GROUP, VERSION, Agent, MCPServer, ModelAPI, Workload
from kaos.reconcilers import runtimes
from kaos.reconcilers.agent import AGENTS_NAMED, USES, asks_for_tokens
from kaos.reconcilers.children.names import KIND_LABEL, NAME_LABEL, ref
from kaos.reconcilers.grants import REFERENCE_GRANT
from kaos.reconcilers.pod_metrics import API_SERVICE, POD_METRICS
from kaos.reconcilers.references import REFERENCES, index_keys
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import PODS_OF, workload_key
from kaos.runtime import (
    CONFIG_MAP,
    DEPLOYMENT,
    POD,
    SECRET,
    Cache,
    Object,
    Request,
    Selection,
    Watches,
    controller_of,
    spec_changed,
    without,
)

API_VERSION = f"{GROUP}/{VERSION}"
PODS = Selection(label_selector=f"{KIND_LABEL},{NAME_LABEL}", transform=without("spec"))
SECRETS = Selection(metadata_only=True)


class Concerns:
    """Whom changes concern, by what the cache knows.

    Args:
        cache: that is watched; indexes are added to it.
        settings: tell whether Secrets are watched, and where the registry of runtimes is.
    """

    def __init__(self, cache: Cache, settings: Settings) -> None:
        self._cache = cache
        self._settings = settings
        cache.add_index(DEPLOYMENT, REFERENCES, index_keys)
        cache.add_index(POD, PODS_OF, _workload_keys)
        cache.add_index(Agent, USES, _used)
        cache.add_index(Agent, AGENTS_NAMED, lambda agent: [agent.name])

    def of(self, model: type[Workload]) -> list[Watches]:
        """What a kind watches besides its children."""
        found = [self._pods(model), *self._referenced(model), self._granted(model)]
        if model is Agent:
            found += [
                *(self._used(kind) for kind in (ModelAPI, MCPServer, Agent)),
                Watches(Agent, self._namesakes, predicate=spec_changed),
                Watches(Agent, self._guarded, predicate=spec_changed),
            ]
            if (
                not self._settings.namespaces
            ):  # they are the cluster's, and no namespace's rights do
                found.append(Watches(API_SERVICE, self._scaled_by_runs, optional=True))
        elif model is MCPServer:
            found.append(Watches(CONFIG_MAP, self._registered))
        return found

    def _pods(self, model: type[Workload]) -> Watches:
        word = model.KIND.lower()

        def to_requests(pod: Object) -> Iterator[Request]:
            labels = pod.metadata.labels_
            if labels.get(KIND_LABEL) == word and NAME_LABEL in labels:
                yield Request(pod.namespace, labels[NAME_LABEL])

        return Watches(POD, to_requests, select=PODS)

    def _referenced(self, model: type[Workload]) -> list[Watches]:
        """Secrets and ConfigMaps: a change concerns whose Deployment refers to them."""

        def to_requests(obj: Object) -> Iterator[Request]:
            key = f"{obj.kind}/{obj.namespace}/{obj.name}"
            for deployment in self._cache.by_index(DEPLOYMENT, REFERENCES, key):
                owner = controller_of(deployment)
                if owner and (owner.kind, owner.api_version) == (model.KIND, API_VERSION):
                    yield Request(deployment.namespace, owner.name)

        found = [Watches(CONFIG_MAP, to_requests)]
        if self._settings.watch_secrets:
            found.append(Watches(SECRET, to_requests, select=SECRETS))
        return found

    def _granted(self, model: type[Workload]) -> Watches:
        """A grant concerns what is in its namespace, and agents that reach into it."""

        def to_requests(grant: Object) -> Iterator[Request]:
            yield from (obj.key for obj in self._cache.list(model, grant.namespace))
            if model is Agent:
                yield from (obj.key for obj in self._cache.by_index(Agent, USES, grant.namespace))

        return Watches(REFERENCE_GRANT, to_requests, optional=True)

    def _used(self, model: type[Workload]) -> Watches:
        """A resource concerns the agents that use it."""

        def to_requests(obj: Object) -> Iterable[Request]:
            key = f"{model.KIND}/{obj.namespace}/{obj.name}"
            return [user.key for user in self._cache.by_index(Agent, USES, key)]

        return Watches(model, to_requests)

    def _namesakes(self, agent: Object) -> Iterable[Request]:
        """One of several agents of a name has the short path."""
        return [other.key for other in self._cache.by_index(Agent, AGENTS_NAMED, agent.name)]

    def _guarded(self, agent: Object) -> Iterator[Request]:
        """An agent concerns those peers that keep a list of their callers."""
        for text in _access(agent):
            target = ref(text, agent.namespace)
            peer = self._cache.get(Agent, target.name, target.namespace)
            if peer is not None and asks_for_tokens(peer):
                yield peer.key

    def _scaled_by_runs(self, extension: Object) -> Iterator[Request]:
        """An adapter for metrics of pods concerns agents that are scaled by theirs."""
        if extension.spec.get("group") == POD_METRICS:
            for agent in self._cache.list(Agent):
                if "targetRunsPerPod" in (agent.spec.get("autoscaling") or {}):
                    yield agent.key

    def _registered(self, config: Object) -> Iterator[Request]:
        """The registry of runtimes concerns every server that it may name an image for."""
        if (config.name, config.namespace) == (runtimes.NAME, self._settings.namespace):
            yield from (server.key for server in self._cache.list(MCPServer))


def _workload_keys(pod: Object) -> Iterator[str]:
    labels = pod.metadata.labels_
    if KIND_LABEL in labels and NAME_LABEL in labels:
        yield workload_key(pod.namespace, {k: labels[k] for k in (KIND_LABEL, NAME_LABEL)})


def _used(agent: Object) -> Iterator[str]:
    """What an agent's spec names, as kind/namespace/name, and namespaces that it reaches into."""
    spec, here = agent.spec, agent.namespace
    named = [("ModelAPI", spec.get("modelAPI", ""))]
    named += [("MCPServer", text) for text in spec.get("mcpServers", ())]
    named += [("Agent", text) for text in _access(agent)]
    for kind, text in named:
        target = ref(text, here)
        yield f"{kind}/{target.namespace}/{target.name}"
        if target.namespace != here:
            yield target.namespace


def _access(agent: Object) -> Iterable[str]:
    found: Iterable[str] = agent.spec.get("agentNetwork", {}).get("access", ())
    return found
