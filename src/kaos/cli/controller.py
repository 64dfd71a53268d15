"""`kaos controller`: the controllers, for a real cluster (`python -m kaos.reconcilers`)."""

import typer

from kaos.cli.options import Verbose
from kaos.reconcilers.__main__ import main

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    help="Run the controllers against the current Kubernetes cluster.\n\n"
    "The cluster is that of KUBECONFIG, or of the pod it runs in; the settings are environment "
    "variables (KAOS_IMAGE, KAOS_GATEWAY, KAOS_LISTEN, LOG_LEVEL, …)."
)
def controller(*, verbose: Verbose = False) -> None:
    """Hand over to the controller's own program."""
    del verbose
    raise typer.Exit(main())
