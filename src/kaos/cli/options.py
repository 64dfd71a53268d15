"""Options that several commands share, so that they are spelled and explained the same way."""

from pathlib import Path
from typing import Annotated

import typer

VERBOSE = "kaos.verbose"


def _note_verbose(ctx: typer.Context, value: bool) -> bool:
    if value:
        ctx.meta[VERBOSE] = True  # shared by all contexts: `kaos -v up` and `kaos up -v` are one
    return value


Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", help="Show a traceback when it fails.", callback=_note_verbose),
]
StateDir = Annotated[
    Path,
    typer.Option("--state", metavar="DIR", help="The folder that holds the cluster's state."),
]
Namespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NAME", help="The resource's namespace.")
]
DEFAULT_STATE = Path(".kaos")
