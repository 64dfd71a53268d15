"""The cluster in one process: API server, the KAOS controllers and the node, put together.

Guaranteed: `ready` is called once all of it works; the end comes in order, controllers first, then
the pods (with their grace), then the API server, so that nothing is left behind and nobody talks to
something that is gone.

Not guaranteed: surviving the loss of one part. When one ends by an error, all end, with that error:
a cluster without its API server or without its node is none.
"""

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import structlog

from kaos import __version__, api
from kaos.local import certificate, gateway_api, kubeconfig
from kaos.local.apiserver.server import APIServer
from kaos.local.node.node import Node
from kaos.local.restart import forget_readiness
from kaos.local.state import ClusterInfo, State
from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.reconcilers.account_tokens import makes_account_tokens
from kaos.runtime import Client, ClusterConfig, Manager

log = structlog.get_logger(__name__)

_SETUP = "kaos-setup"


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What one cluster process is asked to be."""

    state: State
    gateway_port: int = 8080
    controllers: bool = True  # False: somebody runs `kaos controller` beside it


async def run(
    settings: ClusterSettings, *, stop: anyio.Event, ready: Callable[[ClusterInfo], None]
) -> None:
    """Run a cluster until ``stop`` is set; the caller holds the state's lock.

    Args:
        settings: Where its state is and which port its gateway gets.
        stop: Set it to end the cluster in order.
        ready: Called once, when the API answers and the controllers and the node run.
    """
    state = settings.state
    server = APIServer(database=state.database, token=state.token())
    certificate.create(state.certificate, state.key)
    async with server.serve(tls=(state.certificate, state.key)) as url:
        kubeconfig.write(state.kubeconfig, url, state.token(), state.certificate.read_bytes())
        config = ClusterConfig.direct(url, state.token(), ca=state.certificate)
        await _set_up(config, settings.gateway_port)
        node = Node(config, state.node, gateway_port=settings.gateway_port)
        server.node = node
        async with _background(node.run) as node_started:
            manager = Manager(config, field_manager=FIELD_MANAGER)
            if settings.controllers:
                # Its proxies are told of a pod's end before the pod is: nothing to wait for.
                kaos_settings = dataclasses.replace(
                    Settings.from_env(),
                    drain=0,
                    service_map=str(node.service_map),
                    account_tokens=await makes_account_tokens(manager.client),
                )
                manager.add(*controllers(manager, kaos_settings))
            async with _background(manager.run) as started:
                await _first(stop, started, node_started)
                if not stop.is_set():
                    ready(_info(url, settings.gateway_port))
                await stop.wait()
                log.info("stopping")
            log.info("controllers have stopped")
        log.info("pods have stopped")


async def _set_up(config: ClusterConfig, gateway_port: int) -> None:
    """Apply what every embedded cluster has: our kinds, the Gateway API's, and a Gateway."""
    bodies: list[dict[str, Any]] = [
        *api.crds(),
        *gateway_api.crds(),
        *gateway_api.objects(gateway_port),
    ]
    async with Client.connect(config, field_manager=_SETUP) as client:
        for body in bodies:
            await client.apply(body)
        await forget_readiness(client)


def _info(url: str, gateway_port: int) -> ClusterInfo:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return ClusterInfo(os.getpid(), started, url, gateway_port, __version__)


@contextlib.asynccontextmanager
async def _background(
    run_part: Callable[..., Awaitable[None]],
) -> AsyncIterator[anyio.Event]:
    """Run a part of the cluster for the length of the block; yields the event of its start."""
    started = anyio.Event()

    async def part() -> None:
        await run_part(started=started)

    async with anyio.create_task_group() as group:
        group.start_soon(part)
        yield started
        group.cancel_scope.cancel()


async def _first(stop: anyio.Event, *started: anyio.Event) -> None:
    """Wait until all have started, or it is time to stop."""
    async with anyio.create_task_group() as group:

        async def stopped() -> None:
            await stop.wait()
            group.cancel_scope.cancel()

        group.start_soon(stopped)
        for event in started:
            await event.wait()
        group.cancel_scope.cancel()
