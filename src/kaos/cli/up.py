"""`kaos up`: the embedded cluster, the files, and their logs, until Ctrl-C.

Order matters for speed: the files are checked first (a typo costs a tenth of a second, not a
cluster), then the cluster process starts, and this program loads its Kubernetes client meanwhile.
"""

import asyncio
import importlib
from typing import Annotated

import typer

from kaos.cli.cluster_process import ClusterProcess
from kaos.cli.errors import UsageError
from kaos.cli.options import DEFAULT_STATE, StateDir, Verbose
from kaos.cli.ports import require_free
from kaos.cli.request import Request
from kaos.local.state import State

app = typer.Typer(add_completion=False, rich_markup_mode=None)

HELP = """Start a cluster on this machine and apply FILEs to it.

FILEs are manifests, folders of them, or - for standard input; they are applied in order. Without
any, the cluster comes up with what it had before. It runs until Ctrl-C (twice: at once), showing
the logs of everything in it; -d leaves it in the background.

When a cluster runs already on the same state folder, the FILEs are applied to that one and the
command returns once they are ready (with --ask, once the agent has answered): the cluster stays
with whoever started it.
"""


@app.command(help=HELP)
def up(
    *,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="What to apply.", show_default=False),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Ask the first agent, print the answer, stop."),
    ] = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Leave it running.")] = False,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="The gateway's port.")
    ] = 8080,
    model_override: Annotated[
        list[str] | None,
        typer.Option(metavar="FROM=TO", help="Serve model TO where FROM is asked for."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long to wait for readiness.")
    ] = 300.0,
    state_dir: StateDir = DEFAULT_STATE,
    verbose: Verbose = False,
) -> None:
    """Check the files, start the cluster (unless one runs), and hand over to the session."""
    del verbose
    if ask is not None and not ask.strip():
        raise UsageError("--ask needs a question")
    request = Request(
        state=State(state_dir),
        files=tuple(files or ()),
        overrides=overrides_of(model_override or []),
        port=port,
        ask=ask,
        detach=detach,
        timeout=timeout,
    )
    manifests = request.load()
    process = None
    if request.state.owner() is None:
        require_free(port)
        process = ClusterProcess.start(
            request.state, port=port, overrides=request.overrides, attached=not detach
        )
    try:
        # Now, not at the top: half a second of imports that run beside the cluster's own start.
        session = importlib.import_module("kaos.cli.session")
        code = asyncio.run(session.run(request, manifests, process))
    except KeyboardInterrupt:  # before the session could look after it
        if process is not None:
            process.terminate()
        raise
    finally:
        if process is not None:
            process.close()
    raise typer.Exit(code)


def overrides_of(pairs: list[str]) -> dict[str, str]:
    """``FROM=TO`` pairs as a mapping.

    Raises:
        UsageError: one is not such a pair.
    """
    overrides = {}
    for pair in pairs:
        original, equals, replacement = (part.strip() for part in pair.partition("="))
        if not (original and equals and replacement) or "," in pair or "=" in replacement:
            raise UsageError(
                f"--model-override {pair}: write FROM=TO, e.g. llama3.2:latest=smollm2:135m"
            )
        overrides[original] = replacement
    return overrides
