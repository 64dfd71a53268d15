"""docs/reference/cli.md says what the commands say of themselves, and no more."""

from pathlib import Path
from typing import Any

import pytest

from kaos.cli.errors import FAILED, NOT_RUNNING, USAGE
from kaos.cli.main import COMMANDS, load
from kaos.cli.session import INTERRUPTED

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def section(name: str) -> str:
    """The part of the reference under the heading of a command."""
    _, _, rest = REFERENCE.read_text(encoding="utf-8").partition(f"\n## kaos {name}\n")
    return rest.partition("\n## ")[0]


def option_row(option: Any) -> str:
    name = ", ".join(f"`{opt}`" for opt in option.opts)
    if not option.is_flag:
        name += f" `{option.metavar}`"
    default = "" if option.default is None or option.is_flag else f"`{option.default}`"
    return f"| {name} | {default} | {option.help} |"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_every_option_with_its_meaning_and_default(name: str) -> None:
    text = section(name)
    assert text.startswith(f"\n{COMMANDS[name]}"), f"cli.md: kaos {name} begins otherwise"
    options = [param for param in load(name).params if param.param_type_name == "option"]
    expected = [option_row(option) for option in options if "--verbose" not in option.opts]
    found = [line for line in text.splitlines() if line.startswith("| `-")]
    assert found == expected, "write these rows:\n" + "\n".join(expected)
    arguments = [param for param in load(name).params if param.param_type_name == "argument"]
    for argument in arguments:
        assert argument.metavar.strip("[]") in text


def test_the_reference_has_every_command_in_their_order() -> None:
    headings = [
        line.removeprefix("## kaos ")
        for line in REFERENCE.read_text(encoding="utf-8").splitlines()
        if line.startswith("## kaos ")
    ]
    assert headings == list(COMMANDS)


def test_the_reference_has_the_exit_codes() -> None:
    _, _, text = REFERENCE.read_text(encoding="utf-8").partition("\n## Exit codes\n")
    cells = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    codes = [int(cell) for cell in cells if cell.isdigit()]
    assert codes == [0, FAILED, USAGE, NOT_RUNNING, INTERRUPTED]
