"""The Agent's reconciler: which model, which servers, which peers, and who has the short path."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kaos.api import GROUP, Agent, MCPServer, Mode, ModelAPI, ServerType, checked_url
from kaos.reconcilers.availability import Availability
from kaos.reconcilers.children.agent import agent_children, endpoint
from kaos.reconcilers.children.names import Ref, ref, service_name
from kaos.reconcilers.children.network import Target, declared
from kaos.reconcilers.children.proxy import covers
from kaos.reconcilers.children.scaling import target_runs
from kaos.reconcilers.conditions import Finding, Reason, Type
from kaos.reconcilers.dependencies import Dependency
from kaos.reconcilers.pod_metrics import POD_METRICS, has_pod_metrics
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import Plan, WorkloadReconciler
from kaos.runtime import HTTP_ROUTE, Object

AGENTS_NAMED = "kaos.tools/agents-named"
USES = "kaos.tools/uses"
MODEL_NAME = "MODEL_NAME"
NO_SERVICE = "is not exposed (its agentNetwork.expose is false), so it has no Service to call"
NO_POD_METRICS = (
    f"autoscaling goes by CPU alone: nobody serves {POD_METRICS}, so targetRunsPerPod waits for it"
)


class AgentReconciler(WorkloadReconciler[Agent]):
    """Agent → Deployment, Service, HTTPRoute; with auth, ServiceAccount and its allow list."""

    MODEL = Agent

    def plan(self, resource: Agent) -> Plan:
        """Decide what shall exist for an agent."""
        namespace, served = resource.namespace, resource.spec.agent_network.expose
        permitted, forbidden = [], []
        for model, target in declared(resource):
            if self.grants.permits(model.KIND, target, namespace):
                permitted.append((model, target))
            else:
                forbidden.append(f"{model.KIND} {target.namespace}/{target.name}")
        api = None if forbidden else self._model_api(resource)
        accepted = refused(forbidden) if forbidden else accept(resource, api)
        if accepted.ok and closed_to_all(resource, self.settings):
            message = (
                "spec.auth: this cluster makes no tokens for service accounts, so nobody could "
                "call the agent; set auth.tokensSecret"
            )
            accepted = Finding(Type.ACCEPTED, False, Reason.NO_ACCOUNT_TOKENS, message)
        model_name = asked_model(resource, api)
        conflict = self._first_claimant(resource)
        children = None
        if accepted.ok and model_name:
            children = agent_children(
                resource,
                model_name,
                self.settings,
                routes=self.cache.synced(HTTP_ROUTE),
                short_path=conflict is None,
                remotes=self._remotes(resource),
                guests=self.guests(resource),
                callers=self._callers(resource),
                guarded=self._guarded(resource),
            )
        return Plan(
            accepted=accepted,
            needs=self._needs(permitted, namespace),
            children=children,
            endpoint=endpoint(resource, self.settings) if served else "",
            extra={"model": model_name},
            unrouted="" if served else "agentNetwork.expose is false",
            route_conflict=conflict or "",
        )

    async def observe(self, resource: Agent, seen: Availability) -> tuple[Finding, dict[str, Any]]:
        """The Available condition, with a note if scaling cannot go by what was asked for."""
        finding, extra = await super().observe(resource, seen)
        if target_runs(resource) is not None and not has_pod_metrics(self.cache):
            message = f"{finding.message}; {NO_POD_METRICS}"
            finding = replace(finding, message=message)
        return finding, extra

    def _model_api(self, agent: Agent) -> ModelAPI | None:
        target = ref(agent.spec.model_api, agent.namespace)
        return _parsed(self.cache.get(ModelAPI, target.name, target.namespace))

    def _needs(self, targets: Sequence[Target], namespace: str) -> list[Dependency]:
        """What it names and may; of peers, that they are available and can be called is asked."""
        found = []
        for model, target in targets:
            obj = self.cache.get(model, target.name, target.namespace)
            type_ = Type.AVAILABLE if model is Agent else Type.READY
            closed = model is Agent and obj is not None and not exposed(obj)
            name = target.seen_from(namespace)
            found.append(Dependency(model.KIND, name, obj, type_, NO_SERVICE if closed else ""))
        return found

    def _remotes(self, agent: Agent) -> dict[str, str]:
        """The URLs of those of its servers that run elsewhere."""
        found = {}
        for text in agent.spec.mcp_servers:
            target = ref(text, agent.namespace)
            server = self.cache.get(MCPServer, target.name, target.namespace)
            if server is None or server.spec.get("headers"):  # a pod here has those
                continue
            if server.spec.get("type") == ServerType.REMOTE:
                found[text] = str(server.spec.get("url", ""))
        return {text: url for text, url in found.items() if _usable(url)}

    def _callers(self, agent: Agent) -> list[str]:
        """The accounts of the agents that name this one and may; asked for only with auth."""
        if agent.spec.auth is None:
            return []
        me = Ref(agent.namespace, agent.name)
        users = self.cache.by_index(Agent, USES, f"{Agent.KIND}/{me.namespace}/{me.name}")
        return [
            f"{user.namespace}/{account_of(user)}"
            for user in users
            if self.grants.permits(Agent.KIND, me, user.namespace)
        ]

    def _guarded(self, agent: Agent) -> list[str]:
        """Those of its peers that ask for a token."""
        found = []
        for text in agent.spec.agent_network.access:
            target = ref(text, agent.namespace)
            peer = self.cache.get(Agent, target.name, target.namespace)
            if peer is not None and asks_for_tokens(peer):
                found.append(text)
        return found

    def _first_claimant(self, agent: Agent) -> str | None:
        """Who else has the path `/<name>`: the oldest agent of that name, in any namespace."""
        claims = [
            other
            for other in self.cache.by_index(Agent, AGENTS_NAMED, agent.name)
            if exposed(other)
        ]
        if not claims:
            return None
        first = min(claims, key=lambda c: (str(c.metadata.creation_timestamp), c.namespace))
        return None if first.uid == agent.metadata.uid else f"Agent {first.namespace}/{first.name}"


def exposed(agent: Object) -> bool:
    """Whether an agent has a Service."""
    return bool((agent.spec.get("agentNetwork") or {}).get("expose", True))


def closed_to_all(agent: Agent, settings: Settings) -> bool:
    """Whether an agent asks for tokens that nobody can have."""
    auth = agent.spec.auth
    return auth is not None and auth.tokens_secret is None and not settings.account_tokens


def asks_for_tokens(agent: Object) -> bool:
    """Whether an agent checks who calls it."""
    return agent.spec.get("auth") is not None


def account_of(agent: Object) -> str:
    """The service account of an agent's pods when it calls a peer that checks."""
    patch = agent.spec.get("podSpec") or {}
    named = patch.get("serviceAccountName") or agent.spec.get("serviceAccountName")
    return str(named or service_name(Agent, agent.name))


def refused(targets: list[str]) -> Finding:
    """The Accepted condition of an agent that names what it may not."""
    message = (
        f"{', '.join(targets)} cannot be used from here: no ReferenceGrant in its namespace allows "
        f"Agents of this one (group {GROUP})"
    )
    return Finding(Type.ACCEPTED, False, Reason.REF_NOT_PERMITTED, message)


def accept(agent: Agent, api: ModelAPI | None) -> Finding:
    """The Accepted condition: whether the ModelAPI serves the agent's model, if there is one."""
    wanted, place = named_model(agent)
    if api is not None and not asked_model(agent, api):
        message = (
            f'ModelAPI "{api.name}" serves any model that fits {", ".join(api.spec.models)} and '
            "has none of its own; name one in spec.model"
        )
        return Finding(Type.ACCEPTED, False, Reason.MODEL_NOT_SERVED, message)
    if not wanted or api is None or serves(api, wanted):
        return Finding(Type.ACCEPTED, True, Reason.SPEC_VALID, "the spec is valid")
    message = (
        f'ModelAPI "{api.name}" does not serve model "{wanted}" '
        f"(it serves: {', '.join(api.spec.models)}); change {place} or the ModelAPI"
    )
    return Finding(Type.ACCEPTED, False, Reason.MODEL_NOT_SERVED, message)


def serves(api: ModelAPI, model: str) -> bool:
    """Whether a ModelAPI answers for a model: by name, or by a pattern."""
    name = plain_name(api, model)
    return any(covers(pattern, name) for pattern in api.spec.models)


def plain_name(api: ModelAPI, model: str) -> str:
    """A model's name as the ModelAPI knows it: on a hosted one, `ollama/x` is `x`."""
    return model.removeprefix("ollama/") if api.spec.mode is Mode.HOSTED else model


def asked_model(agent: Agent, api: ModelAPI | None) -> str:
    """The model that the agent asks for; empty when only the absent ModelAPI could tell."""
    named, _ = named_model(agent)
    if api is None:
        return named
    if named:
        return plain_name(api, named)
    return next((m for m in api.spec.models if "*" not in m), "")


def named_model(agent: Agent) -> tuple[str, str]:
    """The model that an agent's spec names, and where; empty when the ModelAPI's own is meant."""
    for variable in agent.spec.config.env:
        if variable.name == MODEL_NAME and variable.value:
            return variable.value, f"{MODEL_NAME} in spec.config.env"
    return agent.spec.model or "", "spec.model"


def _usable(url: str) -> bool:
    """Whether a server's URL can be called (its own status tells when it cannot)."""
    try:
        checked_url(url)
    except ValueError:
        return False
    return True


def _parsed(obj: Object | None) -> ModelAPI | None:
    """The ModelAPI, if it exists and makes sense (its own status tells when it does not)."""
    if obj is None:
        return None
    try:
        return ModelAPI.parse(obj.to_dict())
    except ValueError:
        return None
