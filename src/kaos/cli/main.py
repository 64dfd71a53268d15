"""The `kaos` program: which commands there are, and what happens when one fails.

Guaranteed: `kaos --help` loads no command (each is imported when it is called: a Kubernetes client
and an HTTP client cost half a second), and every failure ends in one line and an exit code.
"""

try:
    import contextlib
    import importlib
    import io
    import os
    import sys
    import traceback
    from typing import Annotated, Any

    import typer
    from typer.core import TyperCommand, TyperGroup

    from kaos import __version__
    from kaos.cli.errors import FAILED, CliError, leaf
    from kaos.cli.options import VERBOSE, Verbose
    from kaos.local.state import StateError
except KeyboardInterrupt:  # they take a moment, in which a user may think again
    raise SystemExit(130) from None

# Order is the order of `--help`. A test compares the texts with the commands' own.
COMMANDS = {
    "up": "Start a cluster on this machine and apply FILEs to it.",
    "down": "Stop the cluster that `kaos up` started.",
    "status": "Show what runs, and what is not ready and why.",
    "logs": "Show the logs of an agent, a model API or an MCP server.",
    "chat": "Talk to an agent.",
    "controller": "Run the controllers against the current Kubernetes cluster.",
    "version": "Print the version.",
}


class LazyGroup(TyperGroup):
    """A group that knows its commands by name and loads the one that is called."""

    def __init__(self, **settings: Any) -> None:
        """Add a stand-in with the help text for each: what `--help` and completion ask for."""
        super().__init__(**settings)
        for name, text in COMMANDS.items():
            self.add_command(TyperCommand(name, help=text), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The real command, imported now."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(name) if name else None, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command and turn what it raises into a line and an exit code."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Exits, aborts and errors of the command line are the framework's own to report.
            if type(error).__module__.startswith(("typer", "click")):
                raise
            raise typer.Exit(report(error, verbose=bool(ctx.meta.get(VERBOSE)))) from None


def load(name: str) -> Any:
    """The command called ``name``, from the module of that name."""
    module = importlib.import_module(f"kaos.cli.{name}")
    command = typer.main.get_command(module.app)
    command.name = name
    return command


def report(error: BaseException, *, verbose: bool) -> int:
    """Print ``error`` for a person; returns the exit code."""
    error = leaf(error)
    if isinstance(error, BrokenPipeError):
        _hush()  # `kaos logs x | head`: whoever read us has seen enough
        return FAILED
    if verbose:
        traceback.print_exception(error)
    if isinstance(error, CliError):
        lines, code = str(error), error.exit_code
    elif isinstance(error, StateError):
        lines, code = str(error), FAILED
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        lines, code = f"{error.filename}: {error.strerror}", FAILED
    else:
        text = str(error) or type(error).__name__
        lines = f"{text} ({type(error).__name__}; `kaos -v …` shows where)"
        code = FAILED
    for line in lines.splitlines():
        print(f"kaos: {line}", file=sys.stderr)  # noqa: T201
    return code


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help in boxes loads a Markdown parser: a quarter of a second
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"kaos {__version__}")
        raise typer.Exit


@app.callback(help="KAOS: AI agents on Kubernetes, or on this machine without it.")
def _root(
    *,
    verbose: Verbose = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    del verbose, version  # their callbacks have seen to them


def main() -> None:
    """Run `kaos` with the arguments of this process."""
    # Started with a stream closed (`>&-`), Python has none: what is written there goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 (until the end)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: PTH123, SIM115
    write_anything(sys.stdout, sys.stderr)
    app(prog_name="kaos")


def write_anything(*streams: Any) -> None:
    """Let a terminal that lacks a letter show ``?`` for it: an answer is no reason to fail."""
    for stream in streams:
        # Without a locale Python writes strictly too, but for what it could not read before.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _hush() -> None:
    """Write to nobody from now on: the interpreter would complain as it flushes at its end."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nobody:  # noqa: PTH123
        os.dup2(nobody.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
