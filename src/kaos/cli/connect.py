"""From a state folder to the API of the cluster that runs on it."""

import asyncio
import time

from kaos.cli.errors import NOT_RUNNING, CliError
from kaos.local.state import ClusterInfo, State
from kaos.runtime import ClusterConfig

FIELD_MANAGER = "kaos-cli"
_PATIENCE = 30.0


def config_of(state: State, info: ClusterInfo) -> ClusterConfig:
    """How to reach a running cluster."""
    return ClusterConfig.direct(info.url, state.token(), ca=state.certificate)


def require_running(state: State) -> ClusterInfo:
    """The cluster that runs on a folder.

    Raises:
        CliError: none does (exit code 3).
    """
    info = state.running()
    if info is None:
        starting = state.owner() is not None
        raise CliError(
            f"the cluster in {state.folder} is starting: try again in a second"
            if starting
            else f"no cluster runs in {state.folder}: start one with `kaos up`, "
            "or name its folder with --state",
            exit_code=NOT_RUNNING,
        )
    return info


async def wait_running(state: State) -> ClusterInfo:
    """The cluster that another program is starting, once it is up.

    Raises:
        CliError: it did not come up.
    """
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if info := state.running():
            return info
        if state.owner() is None:
            raise CliError(f"the cluster in {state.folder} has just stopped: run `kaos up` again")
        await asyncio.sleep(0.1)
    raise CliError(f"another `kaos up` in {state.folder} does not come up: see {state.cluster_log}")
