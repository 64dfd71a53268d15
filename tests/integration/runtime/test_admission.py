"""Admission webhooks of ours, called by a real API server: the embedded one calls nobody."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel

from kaos.runtime import (
    SECRET,
    Client,
    ClusterConfig,
    CustomResource,
    Forbidden,
    Invalid,
    Manager,
    ResourceType,
)
from kaos.runtime.resources import (
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_WEBHOOK_CONFIGURATION,
)
from kaos.runtime.webhooks import Admission, Denied, Endpoint, Webhooks, certificates, server
from kaos.testing.waiting import eventually

Define = Callable[..., Awaitable[None]]
Run = Callable[..., Awaitable[Manager]]
NAME = "admission.kaos.tools"
OVERLAP = 4.0


class PotSpec(BaseModel):
    size: int | None = None
    lid: str = ""


class Pot(CustomResource):
    GROUP, VERSION, KIND, PLURAL = NAME, "v1", "Pot", "pots"
    spec: PotSpec


POT = ResourceType.of(Pot)


@pytest.fixture
def endpoint(real: bool, kaos_api: ClusterConfig) -> Endpoint:
    """Where the API server reaches this process: our address on the way to it."""
    if not real:
        pytest.skip("needs --kaos-kubeconfig: the embedded API server calls no webhooks")
    there = urlsplit(kaos_api.server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((there.hostname, there.port))
        host = probe.getsockname()[0]
    with socket.create_server((host, 0)) as free:
        port = free.getsockname()[1]
    url = f"https://{host}:{port}"
    return Endpoint(url=url, namespace=kaos_api.namespace, host=host, port=port)


@asynccontextmanager
async def serving(
    manager: Manager, client: Client, endpoint: Endpoint, run: Run
) -> AsyncIterator[Webhooks]:
    """The webhooks at work, for our namespace alone; nothing of them is left."""
    hooks = Webhooks(NAME, endpoint)
    ours = {"matchLabels": {"kubernetes.io/metadata.name": endpoint.namespace}}

    @hooks.default(Pot, namespaceSelector=ours)
    async def defaults(asked: Admission) -> None:
        asked.object["spec"].setdefault("size", 3)

    @hooks.validate(Pot, operations=["CREATE", "UPDATE", "DELETE"], namespaceSelector=ours)
    async def checks(asked: Admission) -> None:
        if asked.operation == "DELETE":
            if asked.old["spec"]["lid"] == "closed":
                raise Denied("spec.lid is closed: open it first")
        elif asked.object["spec"]["size"] > 9:
            raise Denied("too large", fields={"spec.size": "at most 9"})

    manager.beside(hooks)
    try:
        await run(manager)
        await eventually(lambda: not hooks.not_ready())
        yield hooks
    finally:
        await client.delete(MUTATING_WEBHOOK_CONFIGURATION, NAME)
        await client.delete(VALIDATING_WEBHOOK_CONFIGURATION, NAME)


async def until_called(client: Client, namespace: str) -> None:
    """The API server learns of a configuration a moment later."""

    async def refused() -> bool:
        try:
            await client.create(POT.body("probe", namespace, spec={"size": 10}), dry_run=True)
        except Invalid:
            return True
        return False

    await eventually(refused, within=15)


async def test_a_real_api_server_asks_us_to_validate_and_to_default(
    endpoint: Endpoint,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_define: Define,
    kaos_run: Run,
) -> None:
    namespace = kaos_api.namespace
    await kaos_define(Pot)
    async with serving(Manager(kaos_api), kaos_client, endpoint, kaos_run):
        await until_called(kaos_client, namespace)
        made = await kaos_client.create(POT.body("a", namespace, spec={"lid": "closed"}))
        assert made.spec == {"lid": "closed", "size": 3}

        with pytest.raises(Invalid, match="too large") as refused:
            await kaos_client.patch(POT, "a", namespace, {"spec": {"size": 10}})
        assert [c.field for c in refused.value.causes] == ["spec.size"]
        with pytest.raises(Forbidden, match=r"spec\.lid is closed: open it first"):
            await kaos_client.delete(POT, "a", namespace)
        await kaos_client.patch(POT, "a", namespace, {"spec": {"lid": "open"}})
        await kaos_client.delete(POT, "a", namespace)


async def test_no_call_fails_while_the_certificate_is_replaced(
    endpoint: Endpoint,
    kaos_api: ClusterConfig,
    kaos_client: Client,
    kaos_define: Define,
    kaos_run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    namespace = kaos_api.namespace
    monkeypatch.setattr(certificates, "OVERLAP", OVERLAP)
    monkeypatch.setattr(server, "_CHECK_EVERY", 0.5)
    # It was made two thirds of its life ago: time for the next one.
    old = certificates.make(endpoint.names, certificates.utc_now() - timedelta(days=61))
    body: dict[str, Any] = {"type": "kubernetes.io/tls", "data": certificates.State(old).data()}
    await kaos_client.create(SECRET.body(f"{NAME}-webhooks", namespace, **body))
    await kaos_define(Pot)

    async def state() -> certificates.State:
        found = certificates.state_of(await kaos_client.get(SECRET, f"{NAME}-webhooks", namespace))
        assert found is not None
        return found

    async with serving(Manager(kaos_api), kaos_client, endpoint, kaos_run):
        await until_called(kaos_client, namespace)
        assert (await state()).current == old
        calls, replaced_after = 0, 0
        loop = asyncio.get_running_loop()
        end = loop.time() + OVERLAP + 4
        while loop.time() < end:
            pot = POT.body(f"p{calls}", namespace, spec={})
            made = await kaos_client.create(pot, dry_run=True)
            assert made.spec["size"] == 3
            calls += 1
            if not replaced_after and (await state()).current != old:
                replaced_after = calls
            await asyncio.sleep(0.02)
    assert 10 < replaced_after < calls - 10
