"""The controller as a process: `python -m kaos.reconcilers`, also `kaos controller`.

Reads the cluster from KUBECONFIG or from the pod it runs in, its settings from the environment,
and runs until SIGTERM or SIGINT. Logs are JSON unless a terminal reads them.
"""

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import replace

import structlog

from kaos.reconcilers import FIELD_MANAGER, Settings, controllers
from kaos.reconcilers.account_tokens import makes_account_tokens
from kaos.runtime import POD, Client, ClusterConfig, HttpServer, LeaderElection, Manager
from kaos.telemetry.logs import configure

TEMPLATE_HASH = "pod-template-hash"  # of one version of the pods alone
CONTAINER = "controller"  # as manifests/controller.yaml names it

log = structlog.get_logger("kaos.controller")


async def run(settings: Settings, *, listen: str, elect: bool) -> None:
    """Run the controllers against the current cluster until a signal comes.

    Args:
        settings: of the controller.
        listen: host:port of /healthz, /readyz and /metrics.
        elect: whether several replicas of this process choose one that acts.
    """
    config = await ClusterConfig.load()
    host, _, port = listen.rpartition(":")
    election = None
    if elect:
        election = LeaderElection("kaos-controller", settings.namespace)
    manager = Manager(
        config,
        field_manager=FIELD_MANAGER,
        namespaces=settings.namespaces,
        leader_election=election,
        http=HttpServer(host or "127.0.0.1", int(port)),
    )
    settings = await as_own_pod(settings, manager.client)
    settings = replace(settings, account_tokens=await makes_account_tokens(manager.client))
    manager.add(*controllers(manager, settings))
    loop, running = asyncio.get_running_loop(), asyncio.ensure_future(manager.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    log.info(
        "controller starts",
        image=settings.image,
        listen=listen,
        namespaces=settings.namespaces or "all",
    )
    with contextlib.suppress(asyncio.CancelledError):
        await running
    log.info("controller has stopped")


async def as_own_pod(settings: Settings, client: Client) -> Settings:
    """The settings with what the pod that we are in tells, if we are in one.

    Its image, unless `KAOS_IMAGE` names one, so that one `images:` line of a kustomization changes
    what the controller starts as well; its labels; and whether pods here have IPv6 addresses.
    """
    name, namespace = os.environ.get("KAOS_POD_NAME"), os.environ.get("KAOS_POD_NAMESPACE", "")
    if not name:
        return settings
    pod = await client.get(POD, name, namespace)
    labels = {k: v for k, v in pod.metadata.labels_.items() if k != TEMPLATE_HASH}
    # By a variable: the pod's status may not have them yet when its first process reads it.
    ipv6 = ":" in os.environ.get("KAOS_POD_IPS", "")
    settings = replace(settings, ipv6=ipv6, own_labels=labels)
    if os.environ.get("KAOS_IMAGE"):
        return settings
    containers = {one["name"]: one["image"] for one in pod.spec["containers"]}
    # The first one may be a mesh's proxy, which was put there when the pod was admitted.
    return replace(settings, image=containers.get(CONTAINER) or next(iter(containers.values())))


def main() -> int:
    """Run the controller; 0 after a signal, 1 when it cannot run."""
    configure(os.environ.get("LOG_LEVEL", "INFO"), os.environ.get("KAOS_LOG_FORMAT"))
    listen = os.environ.get("KAOS_LISTEN", "127.0.0.1:8081")
    elect = os.environ.get("KAOS_LEADER_ELECTION", "").lower() == "true"
    try:
        asyncio.run(run(Settings.from_env(), listen=listen, elect=elect))
    except Exception as error:  # noqa: BLE001 - the process's edge: one clear line, and its status
        log.critical("the controller cannot run", error=f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
