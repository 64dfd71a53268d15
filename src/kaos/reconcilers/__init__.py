"""The controllers of KAOS: one reconciler a kind, on `kaos.runtime`.

`controllers(manager, settings)` is all that a process needs: it wires what each kind watches.
Nothing here knows whether the cluster is a real one or the embedded one.
"""

from collections.abc import Iterable

from kaos.api import GROUP, VERSION, Agent, MCPServer, ModelAPI, Workload
from kaos.reconcilers import runtimes
from kaos.reconcilers.agent import AGENTS_NAMED, USES, AgentReconciler, asks_for_tokens
from kaos.reconcilers.children.names import KIND_LABEL, NAME_LABEL, ref
from kaos.reconcilers.grants import REFERENCE_GRANT
from kaos.reconcilers.mcpserver import MCPServerReconciler
from kaos.reconcilers.metadata_only import MetadataOnly
from kaos.reconcilers.modelapi import ModelAPIReconciler
from kaos.reconcilers.pod_metrics import API_SERVICE, POD_METRICS
from kaos.reconcilers.references import REFERENCES, index_keys
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import CHILD_KINDS, PODS_OF, workload_key
from kaos.runtime import (
    CONFIG_MAP,
    DEPLOYMENT,
    HTTP_ROUTE,
    POD,
    SECRET,
    Controller,
    Manager,
    Object,
    Owns,
    Request,
    Watches,
    controller_of,
)

FIELD_MANAGER = "kaos-controller"
API_VERSION = f"{GROUP}/{VERSION}"
WORKERS = 4


def controllers(manager: Manager, settings: Settings) -> list[Controller]:
    """The controllers of the three kinds, ready to be added to the manager."""
    cache = manager.cache
    manager.client.transport = MetadataOnly(manager.client.transport)
    cache.add_index(DEPLOYMENT, REFERENCES, index_keys)
    cache.add_index(POD, PODS_OF, _workload_keys)
    cache.add_index(Agent, USES, _used)
    cache.add_index(Agent, AGENTS_NAMED, lambda agent: [agent.name])

    def users(kind: str) -> Watches:
        def to_requests(obj: Object) -> Iterable[Request]:
            key = f"{kind}/{obj.namespace}/{obj.name}"
            return [user.key for user in cache.by_index(Agent, USES, key)]

        return Watches(
            {"ModelAPI": ModelAPI, "MCPServer": MCPServer, "Agent": Agent}[kind], to_requests
        )

    def namesakes(obj: Object) -> Iterable[Request]:
        return [other.key for other in cache.by_index(Agent, AGENTS_NAMED, obj.name)]

    def guarded(obj: Object) -> Iterable[Request]:
        """An agent concerns those peers that keep a list of their callers."""
        for text in _access(obj):
            target = ref(text, obj.namespace)
            peer = cache.get(Agent, target.name, target.namespace)
            if peer is not None and asks_for_tokens(peer):
                yield peer.key

    owns = [Owns(kind, optional=kind == HTTP_ROUTE) for kind in CHILD_KINDS]

    def pods(model: type[Workload]) -> Watches:
        word = model.KIND.lower()

        def to_requests(pod: Object) -> Iterable[Request]:
            labels = pod.metadata.labels
            if labels.get(KIND_LABEL) == word and NAME_LABEL in labels:
                yield Request(pod.namespace, labels[NAME_LABEL])

        return Watches(POD, to_requests)

    def referenced(model: type[Workload]) -> list[Watches]:
        """Secrets and ConfigMaps: a change concerns whose Deployment refers to them."""

        def to_requests(obj: Object) -> Iterable[Request]:
            key = f"{obj.kind}/{obj.namespace}/{obj.name}"
            for deployment in cache.by_index(DEPLOYMENT, REFERENCES, key):
                owner = controller_of(deployment)
                if owner and (owner.kind, owner.api_version) == (model.KIND, API_VERSION):
                    yield Request(deployment.namespace, owner.name)

        kinds = [CONFIG_MAP, SECRET] if settings.watch_secrets else [CONFIG_MAP]
        return [Watches(kind, to_requests) for kind in kinds]

    def granted(model: type[Workload]) -> Watches:
        """A grant concerns what is in its namespace, and agents that reach into it."""

        def to_requests(grant: Object) -> Iterable[Request]:
            yield from (obj.key for obj in cache.list(model, grant.namespace))
            if model is Agent:
                yield from (obj.key for obj in cache.by_index(Agent, USES, grant.namespace))

        return Watches(REFERENCE_GRANT, to_requests, optional=True)

    def scaled_by_runs(extension: Object) -> Iterable[Request]:
        """An adapter for metrics of pods concerns agents that are scaled by theirs."""
        if extension.spec.get("group") == POD_METRICS:
            for agent in cache.list(Agent):
                if "targetRunsPerPod" in (agent.spec.get("autoscaling") or {}):
                    yield agent.key

    def registered(obj: Object) -> Iterable[Request]:
        """The registry of runtimes concerns every server that it may name an image for."""
        if (obj.name, obj.namespace) == (runtimes.NAME, settings.namespace):
            yield from (server.key for server in cache.list(MCPServer))

    agent_watches = [
        users("ModelAPI"),
        users("MCPServer"),
        users("Agent"),
        Watches(Agent, namesakes),
        Watches(Agent, guarded),
        pods(Agent),
        *referenced(Agent),
        granted(Agent),
        Watches(API_SERVICE, scaled_by_runs, optional=True),
    ]
    return [
        Controller(
            "modelapi",
            ModelAPIReconciler(manager, settings),
            for_=ModelAPI,
            owns=owns,
            watches=[pods(ModelAPI), *referenced(ModelAPI), granted(ModelAPI)],
            workers=WORKERS,
        ),
        Controller(
            "mcpserver",
            MCPServerReconciler(manager, settings),
            for_=MCPServer,
            owns=owns,
            watches=[
                pods(MCPServer),
                *referenced(MCPServer),
                granted(MCPServer),
                Watches(CONFIG_MAP, registered),
            ],
            workers=WORKERS,
        ),
        Controller(
            "agent",
            AgentReconciler(manager, settings),
            for_=Agent,
            owns=owns,
            watches=agent_watches,
            workers=WORKERS,
        ),
    ]


def _workload_keys(pod: Object) -> Iterable[str]:
    labels = pod.metadata.labels
    if KIND_LABEL in labels and NAME_LABEL in labels:
        yield workload_key(pod.namespace, {k: labels[k] for k in (KIND_LABEL, NAME_LABEL)})


def _used(agent: Object) -> Iterable[str]:
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


__all__ = ["FIELD_MANAGER", "Settings", "controllers"]
