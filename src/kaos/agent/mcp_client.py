"""The client half of the MCP SDK: what the agent uses of it, without the server half.

The SDK's client imports the SDK's server, for clients that have their server in their own process:
135 modules, cryptography among them, which are 12 of the 77 MB of an agent that has tools and never
does this. While this module is imported, a stand-in takes the place of `mcp.server`; then it
goes, so that the agent's own MCP endpoint finds the real one. That endpoint imports this first: the
two may be imported at the same time, in threads.

Where `mcp.server` is there already, as in tests, nothing stands in for it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_SERVER = "mcp.server"


class _Absent(ModuleType):
    """A module that has a class of every name, of which there will be no instance."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__class_getitem__": classmethod(lambda cls, _: cls)})


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        ours = fullname == _SERVER or fullname.startswith(f"{_SERVER}.")
        return ModuleSpec(fullname, self, is_package=True) if ours else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        del module


@contextmanager
def _without_server() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in list(sys.modules.items()):
            if isinstance(module, _Absent):
                del sys.modules[name]
        if package := sys.modules.get("mcp"):
            vars(package).pop("server", None)


with nullcontext() if _SERVER in sys.modules else _without_server():
    from mcp.client.client import Client
    from mcp.client.session import IncomingMessage
    from mcp.client.streamable_http import streamable_http_client
    from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
    from mcp.shared.exceptions import MCPError

__all__ = [
    "Client",
    "IncomingMessage",
    "ListenNotSupportedError",
    "MCPError",
    "SubscriptionLost",
    "streamable_http_client",
]
