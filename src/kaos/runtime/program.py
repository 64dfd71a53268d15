"""Controllers as a program: from ``if __name__ == "__main__"`` to SIGTERM.

Guarantees: the cluster is the one kubectl would take (``KUBECONFIG``, ``~/.kube/config``), or that
of the pod; definitions are applied before the controllers start; SIGTERM and SIGINT stop them in
order; what ends it otherwise (no cluster, no rights, a lost lease) is one line on stderr and exit
status 1.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from kaos.runtime.client import Client
from kaos.runtime.config import ClusterConfig
from kaos.runtime.controller import Controller
from kaos.runtime.definition import CustomResource, crd
from kaos.runtime.errors import RuntimeFailure
from kaos.runtime.health import HttpServer
from kaos.runtime.leader import LeaderElection
from kaos.runtime.manager import Manager, run_until_signal

Setup: TypeAlias = Callable[[Manager], Controller]
"""Makes a controller for a manager, whose client and cache its reconciler uses."""


def run(
    *setups: Setup,
    crds: Sequence[type[CustomResource] | Mapping[str, Any]] = (),
    kubeconfig: Path | None = None,
    context: str | None = None,
    field_manager: str = "kaos-runtime",
    namespaces: Sequence[str] = (),
    leader_election: LeaderElection | None = None,
    http: HttpServer | None = None,
) -> None:
    """Run controllers until SIGTERM or SIGINT.

    Args:
        setups: Functions that make a controller each.
        crds: Kinds (or whole manifests) to define first; leave them out where the process may not,
            and apply `crd(model)` by other means.
        kubeconfig: See `ClusterConfig.load`.
        context: See `ClusterConfig.load`.
        field_manager: See `Manager`.
        namespaces: See `Manager`.
        leader_election: See `Manager`.
        http: See `Manager`.
    """

    async def main() -> None:
        try:
            config = await ClusterConfig.load(kubeconfig, context)
        except ValueError as error:
            raise RuntimeFailure(str(error)) from error
        await define(config, *crds, field_manager=field_manager)
        manager = Manager(
            config,
            field_manager=field_manager,
            namespaces=namespaces,
            leader_election=leader_election,
            http=http,
            tune_collector=True,
        )
        manager.add(*(setup(manager) for setup in setups))
        await run_until_signal(manager)

    told: list[str] = []
    try:
        asyncio.run(main())
    except* (RuntimeFailure, OSError) as errors:
        told = [str(error) for error in _leaves(errors)]
    if told:
        sys.exit("; ".join(told))


async def define(
    config: ClusterConfig,
    *crds: type[CustomResource] | Mapping[str, Any],
    field_manager: str = "kaos-runtime",
) -> None:
    """Apply the definitions of kinds.

    Args:
        config: The cluster.
        crds: Models, or whole manifests.
        field_manager: Who owns the fields.
    """
    async with Client.connect(config, field_manager=field_manager) as client:
        for kind in crds:
            await client.apply(kind if isinstance(kind, Mapping) else crd(kind))


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
