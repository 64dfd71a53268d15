"""The errors that a user meets: one line that says what is wrong and the way out, and an exit code.

Guaranteed: a `CliError` ends the command with its message on standard error and no traceback
(`-v` shows one). Exit codes: 1 it went wrong, 2 it was asked for in a wrong way, 3 nothing runs.
"""

FAILED = 1
USAGE = 2
NOT_RUNNING = 3


class CliError(Exception):
    """What is wrong, where, and the way out; several lines when several things are wrong."""

    exit_code = FAILED

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        """Keep ``message``; ``exit_code`` overrides that of the class."""
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(CliError):
    """The command line, or a file named on it, is wrong: nothing was started."""

    exit_code = USAGE


def leaf(error: BaseException) -> BaseException:
    """The error to tell of, in a group of them: task groups wrap whatever happens in them.

    Of several, our own words come first: the cluster process that died explains the broken
    connections, not the other way round.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [leaf(inner) for inner in error.exceptions]
    return next((found for found in leaves if isinstance(found, CliError)), leaves[0])
