"""Spellings of the earlier KAOS that are still accepted, each turned into today's in one place.

docs/reference/compat.md lists them, and a test holds the two together. Nothing behind the models
knows that there ever was another spelling.
"""

from typing import Any

RUNTIMES = ("python-string", "custom")
"""Runtimes that need no registry."""


def mcpserver_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """An MCPServer's spec with our own runtimes and their `params` turned into `type` and `config`.

    Raises:
        ValueError: both spellings are used, or params are missing.
    """
    if "runtime" not in spec:
        if spec.get("params") is not None:
            raise ValueError("params belongs to runtime, which is not set")
        return spec
    runtime, params = spec["runtime"], spec.get("params")
    if spec.get("type") is not None:
        raise ValueError("set one of type and runtime (the earlier spelling)")
    rest = {name: value for name, value in spec.items() if name not in ("runtime", "params")}
    if runtime == "custom":
        return {**rest, "type": "custom"}
    if runtime == "python-string":
        if params is None:
            raise ValueError("runtime python-string needs params, the source of the tools")
        config = {**(rest.get("config") or {}), "tools": {"fromString": params}}
        return {**rest, "type": "python-runtime", "config": config}
    return spec  # a name in the registry of runtimes, which the controller knows
