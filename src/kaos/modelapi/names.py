"""Names of models as Ollama reads them, and names that stand for others."""


class OverrideError(Exception):
    """`KAOS_MODEL_OVERRIDES` is not a list of NAME=NAME."""


def full_name(name: str) -> str:
    """A model's name with its tag: without one it is `latest`; `ollama/x` is `x`."""
    name = name.strip().removeprefix("ollama/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def parse_overrides(text: str) -> dict[str, str]:
    """Read `FROM=TO,FROM=TO` (`KAOS_MODEL_OVERRIDES`); the names come with their tags.

    Raises:
        OverrideError: An entry is not NAME=NAME.
    """
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        source, separator, target = (part.strip() for part in entry.partition("="))
        if not (source and separator and target):
            raise OverrideError(f"KAOS_MODEL_OVERRIDES: {entry!r} is not NAME=NAME")
        found[full_name(source)] = full_name(target)
    return found
