"""Errors of the Kubernetes client in a user's words."""

from kaos.cli.errors import CliError
from kaos.runtime import Invalid, RuntimeFailure, Unreachable


def explain(error: RuntimeFailure, what: str) -> CliError:
    """A `CliError` that says what ``error`` means for ``what`` (e.g. "Agent/assistant").

    An error prints itself with everything the server said; only what a user can do is added.
    """
    match error:
        case Invalid():
            return CliError(f"{what} was refused: {error}")
        case Unreachable():
            return CliError(f"{what}: the cluster does not answer ({error}): see `kaos status`")
        case _:
            return CliError(f"{what}: {error}")
