"""`kaos down`: stop the cluster of a state folder, or clean up after one that was killed."""

import os
import shutil
import signal
import time
from typing import Annotated

import typer

from kaos.cli.cluster_process import STOP_DEADLINE
from kaos.cli.errors import CliError, UsageError
from kaos.cli.leftovers import clean
from kaos.cli.options import DEFAULT_STATE, StateDir, Verbose
from kaos.local.state import State

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_PAUSE = 0.05


@app.command(help="Stop the cluster that `kaos up` started.")
def down(
    *,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete its state too: resources, logs, volumes.")
    ] = False,
    state_dir: StateDir = DEFAULT_STATE,
    verbose: Verbose = False,
) -> None:
    """Stop what runs; with nothing running, end what a killed cluster left."""
    del verbose
    state = State(state_dir)
    if not state.folder.is_dir():
        typer.echo(f"Nothing runs: there is no {state.folder}")
        return
    if purge and not state.is_ours():
        raise UsageError(f"{state.folder} does not look like a state folder of KAOS: not deleted")
    owner = state.owner()
    if owner is not None:
        _stop(state, owner)
        typer.echo("Stopped")
    ended = clean(state)
    for who in ended:
        typer.echo(f"Ended a leftover of a killed cluster: {who}")
    if owner is None and not ended:
        typer.echo("Nothing runs")
    if purge:
        shutil.rmtree(state.folder)
        typer.echo(f"Deleted {state.folder}")


def _stop(state: State, pid: int) -> None:
    """End the process that owns the folder: SIGTERM, and SIGKILL when that takes too long."""
    if pid == 0:
        raise CliError(f"a cluster is just starting in {state.folder}: try again in a second")
    typer.echo(f"Stopping the cluster (process {pid}) …")
    for number, patience in ((signal.SIGTERM, STOP_DEADLINE), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise CliError(f"process {pid} belongs to another user: not stopped") from error
        end = time.monotonic() + patience
        while time.monotonic() < end:
            if state.owner() != pid:
                return
            time.sleep(_PAUSE)
    raise CliError(f"process {pid} does not end, not even by SIGKILL")
