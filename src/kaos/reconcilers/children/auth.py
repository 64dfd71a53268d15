"""Who an agent is to its peers, and how it knows its callers: accounts, tokens, the allow list.

Guarantees: a token that an agent shows to a peer is made for that peer alone, so whoever gets it
cannot show it to another; pods get a token for the API server only where callers are checked, and
its account has no rights of its own, for the keys by which tokens are checked may be read by every
account. The allow list is a file that the agent reads again, so a new caller rolls nobody's pods.

See docs/decisions/0011 for why keys and not TokenReview.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kaos.api import Agent, Auth
from kaos.reconcilers.children.names import Ref, child_name, env_name, ref
from kaos.reconcilers.children.network import to_api_server
from kaos.reconcilers.children.workload import Manifest, metadata

# The names of volumes; the first is kept from users' by its prefix (see `references`).
AUTH, PEER_TOKENS, API_ACCESS = "kaos-auth", "peer-tokens", "api-access"
FOLDERS = {
    AUTH: "/etc/kaos/auth",
    PEER_TOKENS: "/var/run/secrets/kaos.tools/peers",
    API_ACCESS: "/var/run/secrets/kubernetes.io/serviceaccount",
}
CLUSTER_CA = "kube-root-ca.crt"
"""The ConfigMap with the API server's certificate that Kubernetes puts into each namespace."""
SECONDS = 3600
"""How long a token is good; the kubelet renews it long before."""


@dataclass(slots=True)
class AuthParts:
    """What auth adds to an agent's children.

    Attributes:
        account: the service account of its own; None when it needs none.
        children: objects of their own, to be applied before the Deployment.
        env: variables.
        volumes: of the pod.
        egress: rules for what it may reach.
    """

    account: str | None = None
    children: list[Manifest] = field(default_factory=list)
    env: list[tuple[str, str]] = field(default_factory=list)
    volumes: list[Manifest] = field(default_factory=list)
    egress: list[Manifest] = field(default_factory=list)

    @property
    def mounts(self) -> list[tuple[str, str]]:
        """Where the volumes are mounted."""
        return [(volume["name"], FOLDERS[volume["name"]]) for volume in self.volumes]


def audience(agent: Ref) -> str:
    """What tokens for an agent are made for."""
    return f"kaos.tools/agent/{agent.namespace}/{agent.name}"


def auth_parts(
    agent: Agent, callers: Sequence[str], guarded: Sequence[str], *, accounts: bool
) -> AuthParts:
    """Everything that an agent needs to check its callers, and to be known to its peers.

    Args:
        agent: the resource.
        callers: the service accounts of agents that name it, as namespace/name.
        guarded: those of its peers that check their callers, as its spec names them.
        accounts: whether the cluster makes tokens for service accounts.
    """
    parts = AuthParts()
    if (auth := agent.spec.auth) is not None:
        _check_callers(parts, agent, auth, callers, accounts=accounts)
    if guarded and accounts:
        _show_tokens(parts, agent, guarded)
    if parts.volumes and accounts and agent.spec.service_account_name is None:
        parts.account = child_name(agent)
        own = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(agent),
            "automountServiceAccountToken": False,
        }
        parts.children.insert(0, own)
    return parts


def _check_callers(
    parts: AuthParts, agent: Agent, auth: Auth, callers: Sequence[str], *, accounts: bool
) -> None:
    sources: list[Manifest] = []
    if accounts:
        name = f"{child_name(agent)}-auth"
        allowed = "".join(f"{entry}\n" for entry in sorted({*callers, *auth.allow}))
        parts.children.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata(agent, name),
                "data": {"allow": allowed},
            }
        )
        sources.append({"configMap": {"name": name}})
        parts.env += [
            ("KAOS_AUTH_SERVICE_ACCOUNTS", "jwks"),
            ("KAOS_AUTH_ALLOW_FILE", f"{FOLDERS[AUTH]}/allow"),
            ("KAOS_AUTH_AUDIENCE", audience(Ref(agent.namespace, agent.name))),
        ]
        parts.volumes.append(_projected(API_ACCESS, _api_access()))
        parts.egress.append(to_api_server())
    if auth.tokens_secret is not None:
        items = [{"key": auth.tokens_secret.key, "path": "tokens"}]
        sources.append({"secret": {"name": auth.tokens_secret.name, "items": items}})
        parts.env.append(("KAOS_AUTH_TOKENS_FILE", f"{FOLDERS[AUTH]}/tokens"))
    parts.volumes.append(_projected(AUTH, sources))


def _show_tokens(parts: AuthParts, agent: Agent, guarded: Sequence[str]) -> None:
    sources = []
    for text in guarded:
        peer = ref(text, agent.namespace)
        sources.append(_token(peer.name, audience(peer)))
        variable = f"PEER_AGENT_{env_name(peer.name)}_TOKEN_FILE"
        parts.env.append((variable, f"{FOLDERS[PEER_TOKENS]}/{peer.name}"))
    parts.volumes.append(_projected(PEER_TOKENS, sources))


def _api_access() -> list[Manifest]:
    """What Kubernetes mounts itself where a token is asked for, of which ours is explicit."""
    items = [{"key": "ca.crt", "path": "ca.crt"}]
    return [_token("token"), {"configMap": {"name": CLUSTER_CA, "items": items}}]


def _token(path: str, audience: str = "") -> Manifest:
    made_for = {"audience": audience} if audience else {}
    return {"serviceAccountToken": {**made_for, "expirationSeconds": SECONDS, "path": path}}


def _projected(name: str, sources: list[Manifest]) -> Manifest:
    return {"name": name, "projected": {"sources": sources}}
