"""`kaos version`."""

import typer

from kaos import __version__

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(help="Print the version.")
def version() -> None:
    """Print the version."""
    typer.echo(f"kaos {__version__}")
