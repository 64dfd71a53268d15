"""Who we are and what we may: tokens that are refused, kinds that are forbidden.

On a real API server with service accounts and RBAC, which the embedded one has not: there the
server is started again with another token, and the fault proxy forbids.
"""

import base64
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kaos.runtime import (
    CONFIG_MAP,
    SECRET,
    SERVICE,
    ApplySet,
    Client,
    ClusterConfig,
    Controller,
    Forbidden,
    Manager,
    Object,
    Request,
    ResourceType,
    Unauthorized,
)
from kaos.testing.faults import FaultProxy, Refuse, Rule
from kaos.testing.waiting import eventually
from tests.chaos.processes import Server
from tests.chaos.users import insist
from tests.integration.runtime.accounts import Account, authority
from tests.unit.runtime.support import running

Run = Callable[..., Awaitable[Manager]]
COPIED = {"metadata": {"labels": {"copy": "wanted"}}}


class Robot:
    """Somebody whose token is in a file, as a kubelet or a sidecar keeps it, and can be refused.

    Args:
        server: The server, which is killed to end the watches that began with the token.
        admin: Who gives and takes tokens of a real one.
        folder: For the files.
    """

    def __init__(self, server: Server, admin: Client, folder: Path, *, real: bool) -> None:
        self.file, self.kubeconfig = folder / "token", folder / "config"
        self._server, self._admin, self._real = server, admin, real
        self._account = Account(admin, server.config.namespace, "robot")

    async def load(self, *, by_plugin: bool = False) -> ClusterConfig:
        """The configuration of a program that was given the file, or a plugin that reads it."""
        cluster = {"server": self._server.config.server}
        if self._real:
            await self._account.may("configmaps")
            certificate = await authority(self._admin, self._server.config.namespace)
            encoded = base64.b64encode(certificate.encode()).decode()
            cluster["certificate-authority-data"] = encoded
        body = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [
                {"name": "u", "user": self._plugin() if by_plugin else {"tokenFile": "token"}}
            ],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        self.kubeconfig.write_text(json.dumps(body))
        return await ClusterConfig.load(self.kubeconfig)

    def _plugin(self) -> dict[str, Any]:
        version = "client.authentication.k8s.io/v1"
        program = (
            "import json, pathlib, sys; "
            "status = {'token': pathlib.Path(sys.argv[1]).read_text()}; "
            f"print(json.dumps(dict(apiVersion='{version}', kind='ExecCredential', status=status)))"
        )
        args = ["-c", program, str(self.file)]
        mode = {"apiVersion": version, "interactiveMode": "Never"}
        return {"exec": {**mode, "command": sys.executable, "args": args}}

    async def renew(self) -> None:
        """Put a token into the file that is accepted."""
        if self._real:
            self.file.write_text(await self._account.token())
        else:
            self.file.write_text(await self._server.config.credentials.token())

    async def revoke(self) -> None:
        """Let the server refuse the token in the file, and end its watches."""
        if self._real:
            await self._account.revoke()
        else:
            self._server.config = ClusterConfig.direct(self._server.config.server, "another")
            self._server._arguments[-1] = "another"  # type: ignore[attr-defined]
        await self._server.restart()


@pytest.mark.timeout(120)
async def test_a_token_that_expired_stops_nothing_for_good(
    killable: Server,
    real: bool,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_run: Run,
    tmp_path: Path,
) -> None:
    namespace = kaos_api.namespace
    robot = Robot(killable, kaos_client, tmp_path, real=real)
    await robot.renew()
    manager = Manager(await robot.load(), namespaces=[namespace])
    copies = ApplySet(manager.client, manager.cache, kinds=[CONFIG_MAP])

    async def reconcile(request: Request) -> None:
        found = manager.cache.get(CONFIG_MAP, request.name, namespace)
        if found is not None and found.metadata.labels.get("copy") == "wanted":
            await copies.apply(found, [CONFIG_MAP.body(f"copy-of-{found.name}", namespace)])

    manager.add(Controller("copies", reconcile, for_=CONFIG_MAP))
    await kaos_run(manager)

    async def wanted(client: Client, name: str) -> None:
        body = CONFIG_MAP.body(name, namespace, **COPIED)
        await insist(lambda: client.apply(body))

    def copied(name: str) -> bool:
        return manager.cache.get(CONFIG_MAP, f"copy-of-{name}", namespace) is not None

    await wanted(kaos_client, "before")
    await eventually(lambda: copied("before"))

    await robot.revoke()
    async with Client.connect(killable.config) as admin:
        await wanted(admin, "meanwhile")
        informer = manager.cache.informer(CONFIG_MAP)
        await eventually(lambda: isinstance(informer.last_error, Unauthorized), within=30)
        with pytest.raises(Unauthorized):
            await manager.client.create(CONFIG_MAP.body("own", namespace))
        assert not copied("meanwhile")

        await robot.renew()
        await manager.client.create(CONFIG_MAP.body("own", namespace))
        await eventually(lambda: copied("meanwhile"), within=45)
        assert informer.last_error is None
        await wanted(admin, "after")
        await eventually(lambda: copied("after"))


@pytest.mark.parametrize("by_plugin", [False, True], ids=["tokenFile", "exec plugin"])
async def test_a_refused_token_is_replaced_within_the_request(
    server: Server,
    real: bool,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    tmp_path: Path,
    by_plugin: bool,
) -> None:
    robot = Robot(server, kaos_client, tmp_path, real=real)
    robot.file.write_text("refused")
    config = await robot.load(by_plugin=by_plugin)
    async with Client.connect(config) as client:
        with pytest.raises(Unauthorized):
            await client.list(CONFIG_MAP, kaos_api.namespace)
        await robot.renew()
        await client.create(CONFIG_MAP.body("a", kaos_api.namespace))


async def test_a_pod_speaks_as_its_service_account(
    real: bool,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not real:
        pytest.skip("needs --kaos-kubeconfig: the embedded API server has no service accounts")
    namespace = kaos_api.namespace
    account = Account(kaos_client, namespace, "pod")
    await account.may("configmaps")
    (tmp_path / "token").write_text("outdated")
    (tmp_path / "ca.crt").write_text(await authority(kaos_client, namespace))
    (tmp_path / "namespace").write_text(namespace)
    there = urlsplit(kaos_api.server)
    monkeypatch.setattr("kaos.runtime.config._SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(there.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(there.port))
    config = await ClusterConfig.load()
    assert config.namespace == namespace
    async with Client.connect(config) as client:
        (tmp_path / "token").write_text(await account.token())  # the kubelet has rotated it
        assert await client.list(CONFIG_MAP, namespace)
        with pytest.raises(Forbidden, match=f"serviceaccount:{namespace}:pod"):
            await client.list(SECRET, namespace)


async def test_a_wrong_token_is_refused(
    real: bool, kaos_api: ClusterConfig, kaos_client: Client, tmp_path: Path
) -> None:
    ca = tmp_path / "ca"
    if real:
        ca.write_text(await authority(kaos_client, kaos_api.namespace))
    stranger = ClusterConfig.direct(kaos_api.server, "wrong", ca=ca if real else None)
    async with Client.connect(stranger) as client:
        with pytest.raises(Unauthorized):
            await client.list(CONFIG_MAP, kaos_api.namespace)


class Forbidding:
    """Somebody who may read two of three kinds, until he is allowed the third."""

    def __init__(self, admin: Client, config: ClusterConfig, folder: Path, *, real: bool) -> None:
        self._admin, self._config, self._real = admin, config, real
        self._account = Account(admin, config.namespace, "reader")
        self._ca = folder / "ca"
        refusal = 'secrets is forbidden: User "reader" cannot watch resource "secrets"'
        self.proxy = FaultProxy(config, Rule(Refuse(403, "Forbidden", refusal), resource="secrets"))

    async def config(self) -> ClusterConfig:
        if not self._real:
            return self.proxy.config
        await self._account.may("configmaps", "services")
        self._ca.write_text(await authority(self._admin, self._config.namespace))
        token = await self._account.token()
        return ClusterConfig.direct(self._config.server, token, ca=self._ca)

    async def allow(self) -> None:
        if self._real:
            await self._account.may("configmaps", "services", "secrets")
        else:
            self.proxy.rules.clear()


class Seen:
    """Which objects of a kind were reconciled."""

    def __init__(self, manager: Manager, kind: ResourceType) -> None:
        self.names: set[str] = set()
        manager.add(Controller(kind.plural, self.reconcile, for_=kind))

    async def reconcile(self, request: Request) -> None:
        self.names.add(request.name)


@pytest.mark.timeout(90)
async def test_a_forbidden_kind_stops_only_who_needs_it_and_is_named(
    real: bool, kaos_api: ClusterConfig, kaos_client: Client, tmp_path: Path
) -> None:
    namespace = kaos_api.namespace
    spec: dict[str, Any] = {"ports": [{"port": 80}]}

    async def create(kind: ResourceType, name: str, **fields: Any) -> Object:
        return await kaos_client.create(kind.body(name, namespace, **fields))

    forbidding = Forbidding(kaos_client, kaos_api, tmp_path, real=real)
    async with forbidding.proxy:
        await create(SECRET, "hidden")
        manager = Manager(await forbidding.config(), namespaces=[namespace])
        maps, services, secrets = (Seen(manager, k) for k in (CONFIG_MAP, SERVICE, SECRET))
        async with running(manager, wait=False):
            await create(CONFIG_MAP, "a")
            await create(SERVICE, "b", spec=spec)
            await eventually(lambda: "a" in maps.names and "b" in services.names, within=20)
            assert manager.cache.synced(CONFIG_MAP)
            told = manager.readiness()["kinds"]()
            assert "secrets is forbidden" in told
            assert 'cannot watch resource "secrets"' in told or "cannot list" in told
            assert "configmaps" not in told
            assert not secrets.names

            await forbidding.allow()
            await eventually(lambda: "hidden" in secrets.names, within=45)
            assert manager.readiness()["kinds"]() == ""
