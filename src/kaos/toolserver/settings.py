"""What the environment tells a tool server.

| variable | meaning |
|---|---|
| `MCP_SERVER_NAME` | the name the server reports; the same in all replicas |
| `MCP_BUILTIN` | serve this built-in server (`kaos.toolserver.builtin`) |
| `MCP_TOOLS_STRING` | serve the functions of this Python source |
| `KAOS_LISTEN` | `host:port`, default `127.0.0.1:8000` |
| `KAOS_ALLOWED_HOSTS` | comma list of Host names that `/mcp` answers to, besides localhost |

Exactly one of `MCP_BUILTIN` and `MCP_TOOLS_STRING` is given. `MCP_TOOLS_STRING` is taken out of
the environment when it is read: it is not the tools' business, and their children's even less.

Host names: a web page can make a browser call a server on the reader's own machine (DNS
rebinding), and the Host header is what gives it away. So a server that listens on loopback
answers to localhost names only. One that listens on the pod's network is reached under names
that only the cluster knows; without `KAOS_ALLOWED_HOSTS` it answers to all of them, because
no browser is inside that network, and a wrong guess would lock out every client with 421.
"""

import ipaddress
from collections.abc import MutableMapping
from dataclasses import dataclass

LOCALHOST = ("127.0.0.1", "localhost", "[::1]")


class SettingsError(Exception):
    """The environment does not say what to serve."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one tool server.

    Attributes:
        name: Reported to clients.
        builtin: Name of a built-in server, or empty.
        source: Python source of the tools, or empty.
        listen: `host:port`.
        allowed_hosts: Host names `/mcp` answers to, or None for all.
    """

    name: str
    builtin: str
    source: str
    listen: str
    allowed_hosts: tuple[str, ...] | None

    @classmethod
    def from_env(cls, env: MutableMapping[str, str]) -> "Settings":
        """Read the settings; takes `MCP_TOOLS_STRING` out of `env`.

        Raises:
            SettingsError: Neither or both kinds of tools are asked for.
        """
        source = env.pop("MCP_TOOLS_STRING", "")
        builtin = env.get("MCP_BUILTIN", "").strip()
        if bool(source.strip()) == bool(builtin):
            given = "both are set" if builtin else "neither is set"
            raise SettingsError(f"set one of MCP_BUILTIN and MCP_TOOLS_STRING: {given}")
        listen = env.get("KAOS_LISTEN", "").strip() or "127.0.0.1:8000"
        hosts = [host.strip() for host in env.get("KAOS_ALLOWED_HOSTS", "").split(",")]
        return cls(
            name=env.get("MCP_SERVER_NAME", "").strip() or builtin or "kaos-tools",
            builtin=builtin,
            source=source,
            listen=listen,
            allowed_hosts=_allowed([host for host in hosts if host], listen),
        )


def _allowed(extra: list[str], listen: str) -> tuple[str, ...] | None:
    if not extra and not _is_loopback(listen):
        return None
    return (*LOCALHOST, *extra)


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
