"""Service accounts on a real API server: what they may do, their tokens, and the end of these."""

import contextlib

import msgspec

from kaos.runtime import CONFIG_MAP, SERVICE_ACCOUNT, Client, NotFound
from kaos.runtime.transport import HttpRequest
from kaos.testing.waiting import eventually

_RBAC = "rbac.authorization.k8s.io"
_VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


class Account:
    """A service account in a namespace.

    Args:
        admin: Who makes it.
        namespace: Where it is, and where it may do something.
        name: Its name.
    """

    def __init__(self, admin: Client, namespace: str, name: str) -> None:
        self._admin, self._namespace, self.name = admin, namespace, name

    async def may(self, *resources: str) -> None:
        """Let it do everything with these core resources, and nothing with others."""
        rules = [{"apiGroups": [""], "resources": list(resources), "verbs": _VERBS}]
        metadata = {"name": self.name, "namespace": self._namespace}
        common = {"apiVersion": f"{_RBAC}/v1", "metadata": metadata}
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self._namespace}
        reference = {"apiGroup": _RBAC, "kind": "Role", "name": self.name}
        binding = {"subjects": [subject], "roleRef": reference}
        await self._admin.apply({**common, "kind": "Role", "rules": rules})
        await self._admin.apply({**common, "kind": "RoleBinding", **binding})

    async def token(self) -> str:
        """A new token; the account is created when it is not there."""
        await self._admin.apply(SERVICE_ACCOUNT.body(self.name, self._namespace))
        path = SERVICE_ACCOUNT.path(self._namespace, self.name, "token")
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        body = msgspec.json.encode({**asked, "spec": {"expirationSeconds": 600}})
        answer = await self._admin.transport.request(HttpRequest("POST", path, body=body))
        assert answer.status == 201, answer
        token: str = msgspec.json.decode(answer.body)["status"]["token"]
        return token

    async def revoke(self) -> None:
        """Delete it: its tokens are refused."""
        await self._admin.delete(SERVICE_ACCOUNT, self.name, self._namespace)


async def authority(admin: Client, namespace: str) -> str:
    """The certificate that the server's is verified by; it comes a moment after the namespace."""
    found: list[str] = []

    async def there() -> bool:
        with contextlib.suppress(NotFound):
            config_map = await admin.get(CONFIG_MAP, "kube-root-ca.crt", namespace)
            found.append(config_map.get("data")["ca.crt"])
        return bool(found)

    await eventually(there, within=15)
    return found[0]
