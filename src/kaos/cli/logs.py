"""`kaos logs NAME`: what the pods of a resource have written."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import anyio
import typer
from rich.console import Console

from kaos.cli.check import OURS, nearest
from kaos.cli.client_errors import explain
from kaos.cli.connect import config_of, require_running
from kaos.cli.errors import CliError, UsageError
from kaos.cli.loglines import render
from kaos.cli.options import DEFAULT_STATE, Namespace, StateDir, Verbose
from kaos.cli.render import console
from kaos.local.state import State
from kaos.runtime import POD, Client, ClusterConfig, Object, RuntimeFailure

WORDS = {kind.lower(): kind for kind in OURS}

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    help="Show the logs of an agent, a model API or an MCP server.\n\n"
    "NAME is the resource's name; when several kinds have one of that name, all are shown, "
    "unless --kind says which."
)
def logs(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The resource.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as they grow.")] = False,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="agent, modelapi or mcpserver.")
    ] = None,
    tail: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only the last N lines of each.")
    ] = None,
    namespace: Namespace = "default",
    state_dir: StateDir = DEFAULT_STATE,
    verbose: Verbose = False,
) -> None:
    """Print the logs of all containers of all pods of the resource."""
    del verbose
    if kind is not None and kind.lower() not in WORDS:
        raise UsageError(f"--kind {kind}: unknown{nearest(kind, WORDS)}")
    state = State(state_dir)
    selector = f"kaos.tools/name={name}"
    if kind is not None:
        selector += f",kaos.tools/kind={kind.lower()}"
    config = config_of(state, require_running(state))
    kinds = [WORDS[kind.lower()]] if kind is not None else list(OURS)
    asyncio.run(_print(config, name, kinds, namespace, selector, follow=follow, tail=tail))


async def _print(
    config: ClusterConfig,
    name: str,
    kinds: Sequence[str],
    namespace: str,
    selector: str,
    *,
    follow: bool,
    tail: int | None,
) -> None:
    out = console()
    try:
        async with Client.connect(config) as client:
            pods = await client.list(POD, namespace, label_selector=selector)
            if not pods:
                raise CliError(await _nobody(client, name, kinds, namespace))
            sources = [
                (pod, str(container["name"]))
                for pod in pods
                for part in ("initContainers", "containers")
                for container in pod.spec.get(part) or ()
            ]
            if not follow:
                for pod, container in sources:
                    await _one(client, out, pod, container, follow=False, tail=tail)
                return
            async with anyio.create_task_group() as group:
                for pod, container in sources:

                    async def one(pod: Object = pod, container: str = container) -> None:
                        await _one(client, out, pod, container, follow=True, tail=tail)

                    group.start_soon(one)
    except* RuntimeFailure as errors:
        first = errors.exceptions[0]
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        if not isinstance(first, RuntimeFailure):
            raise
        raise explain(first, f"logs of {name}") from first


async def _one(
    client: Client, out: Console, pod: Object, container: str, *, follow: bool, tail: int | None
) -> None:
    containers = [*(pod.spec.get("initContainers") or ()), *pod.spec["containers"]]
    prefix = pod.name if len(containers) == 1 else f"{pod.name}:{container}"
    async for line in client.logs(
        pod.name, pod.namespace, container=container, follow=follow, tail_lines=tail
    ):
        out.print(render(prefix, line.decode(errors="replace")), soft_wrap=True)


async def _nobody(client: Client, name: str, kinds: Sequence[str], namespace: str) -> str:
    """Why there is nothing to show: no such resource, or one without a pod."""
    names = [obj.name for kind in kinds for obj in await client.list(OURS[kind], namespace)]
    if name in names:
        return f"{name} has no pod yet: `kaos status` says what it waits for"
    what = kinds[0] if len(kinds) == 1 else "agent, model API or MCP server"
    return f"no {what} is called {name}{nearest(name, names)}"
