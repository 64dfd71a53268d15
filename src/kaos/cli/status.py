"""`kaos status`: what runs, and what is not ready and why.

Exit codes: 0 all is ready or suspended, 1 something is not, 3 nothing runs.
"""

import asyncio
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.text import Text

from kaos.api import MODELS
from kaos.cli.client_errors import explain
from kaos.cli.connect import config_of, require_running
from kaos.cli.errors import FAILED
from kaos.cli.options import DEFAULT_STATE, StateDir, Verbose
from kaos.cli.render import STYLES, console, table
from kaos.cli.resources import Key, key_of, not_true, row_of
from kaos.cli.watcher import MANAGED
from kaos.local.state import ClusterInfo, State
from kaos.runtime import POD, Client, Object, RuntimeFailure

CONDITION_PARTS = ("type", "reason", "message")

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    help="Show what runs, and what is not ready and why.\n\n"
    "Exit code 1 when something is not ready, 3 when nothing runs."
)
def status(*, state_dir: StateDir = DEFAULT_STATE, verbose: Verbose = False) -> None:
    """Print the tables and set the exit code."""
    del verbose
    state = State(state_dir)
    info = require_running(state)
    resources, pods = asyncio.run(_read(state, info))
    out = console()
    out.print(
        f"Cluster in {state.folder}: process {info.pid}, since {info.started_at}, "
        f"gateway {info.gateway_url}, API {info.url}\n"
    )
    ready = show(out, resources, pods)
    if not ready:
        raise typer.Exit(FAILED)


def show(out: Console, resources: Iterable[Object], pods: Iterable[Object]) -> bool:
    """Print what is known; returns whether all is ready."""
    bodies = [resource.to_dict() for resource in resources]
    if not bodies:
        out.print("No agents, model APIs or MCP servers: apply some with `kaos up FILE`")
        return True
    rows = [row_of(body) for body in bodies]
    out.print(
        table(
            ("resource", "state", "message"),
            ((str(r.key), Text(r.state, style=STYLES.get(r.state, "")), r.message) for r in rows),
        )
    )
    unmet = [(key_of(body), condition) for body in bodies for condition in not_true(body)]
    # Ready only repeats one of the others.
    causes = [(key, found) for key, found in unmet if found.get("type") != "Ready"]
    if causes:
        out.print()
        out.print(
            table(
                ("not true", "condition", "reason", "message"),
                (
                    (str(key), *(str(found.get(part, "")) for part in CONDITION_PARTS))
                    for key, found in causes
                ),
            )
        )
    processes = [line for pod in pods for line in pod_lines(pod)]
    if processes:
        out.print()
        out.print(table(("pod", "container", "process", "state", "restarts"), processes))
    return all(row.settled for row in rows)


def pod_lines(pod: Object) -> Iterable[tuple[str, str, str, str, str]]:
    """One line for each container: its process and how it does."""
    found = pod.status
    for part in ("initContainerStatuses", "containerStatuses"):
        for container in found.get(part) or ():
            state = next(iter((container.get("state") or {"waiting": {}}).items()))
            word, details = state
            reason = str((details or {}).get("reason") or word)
            ready = "ready" if container.get("ready") else reason
            process = str(container.get("containerID") or "").rpartition("/")[2]
            restarts = str(container.get("restartCount", 0))
            name = str(Key("Pod", pod.namespace, pod.name)).removeprefix("Pod/")
            yield name, str(container.get("name", "")), process, ready, restarts


async def _read(state: State, info: ClusterInfo) -> tuple[list[Object], list[Object]]:
    selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())
    try:
        async with Client.connect(config_of(state, info)) as client:
            resources = [obj for model in MODELS for obj in await client.list(model)]
            return resources, await client.list(POD, label_selector=selector)
    except RuntimeFailure as error:
        raise explain(error, "status") from error
