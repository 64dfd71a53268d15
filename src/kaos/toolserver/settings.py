"""What the environment tells a tool server.

| variable | meaning |
|---|---|
| `MCP_SERVER_NAME` | the name the server reports; the same in all replicas |
| `MCP_BUILTIN` | serve this built-in server, else the package of that name |
| `MCP_TOOLS_STRING` | serve the functions of this Python source |
| `MCP_PACKAGE` | serve this package's server (`kaos.toolserver.packages`) |
| `MCP_URL` | serve what the MCP server at this URL does |
| `MCP_RUNTIME` | whose packages: `python` (default) or `node` |
| `MCP_HEADERS_FOLDER` | files named as the headers that requests to `MCP_URL` have |
| `KAOS_PACKAGE_FOLDER` | where the package is installed; by default a new one, removed at the end |
| `KAOS_LISTEN` | `host:port`, default `127.0.0.1:8000` |
| `KAOS_ALLOWED_HOSTS` | comma list of Host names that `/mcp` answers to, besides localhost |

Exactly one of the first four is given. `MCP_TOOLS_STRING` is taken out of the environment when it
is read: it is not the tools' business, and their children's even less.

Host names: a web page can make a browser call a server on the reader's own machine (DNS
rebinding), and the Host header is what gives it away. So a server that listens on loopback
answers to localhost names only. One that listens on the pod's network is reached under names
that only the cluster knows; without `KAOS_ALLOWED_HOSTS` it answers to all of them, because
no browser is inside that network, and a wrong guess would lock out every client with 421.
"""

import ipaddress
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SOURCES = ("MCP_BUILTIN", "MCP_TOOLS_STRING", "MCP_PACKAGE", "MCP_URL")
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
        package: Name of a package, or empty.
        url: Of another MCP server, or empty.
        runtime: Whose packages are meant.
        headers: Folder of the headers for `url`, or None.
        folder: Where a package is installed, or None for a folder of its own.
        listen: `host:port`.
        allowed_hosts: Host names `/mcp` answers to, or None for all.
    """

    name: str
    builtin: str
    source: str
    package: str
    url: str
    runtime: Literal["python", "node"]
    headers: Path | None
    folder: Path | None
    listen: str
    allowed_hosts: tuple[str, ...] | None

    @classmethod
    def from_env(cls, env: MutableMapping[str, str]) -> "Settings":
        """Read the settings; takes `MCP_TOOLS_STRING` out of `env`.

        Raises:
            SettingsError: None or several kinds of tools are asked for, or a value is wrong.
        """
        source = env.pop("MCP_TOOLS_STRING", "")
        given = {name: env.get(name, "").strip() for name in SOURCES} | {"MCP_TOOLS_STRING": source}
        chosen = [name for name, value in given.items() if value.strip()]
        if len(chosen) != 1:
            found = " and ".join(chosen) + " are set" if chosen else "none is set"
            raise SettingsError(f"set one of {', '.join(SOURCES)}: {found}")
        runtime = env.get("MCP_RUNTIME", "").strip() or "python"
        if runtime not in ("python", "node"):
            raise SettingsError(f"MCP_RUNTIME is {runtime!r}; it must be python or node")
        listen = env.get("KAOS_LISTEN", "").strip() or "127.0.0.1:8000"
        hosts = [host.strip() for host in env.get("KAOS_ALLOWED_HOSTS", "").split(",")]
        builtin, package = given["MCP_BUILTIN"], given["MCP_PACKAGE"]
        return cls(
            name=env.get("MCP_SERVER_NAME", "").strip() or builtin or package or "kaos-tools",
            builtin=builtin,
            source=source,
            package=package,
            url=given["MCP_URL"],
            runtime="node" if runtime == "node" else "python",
            headers=_folder(env.get("MCP_HEADERS_FOLDER", "")),
            folder=_folder(env.get("KAOS_PACKAGE_FOLDER", "")),
            listen=listen,
            allowed_hosts=_allowed([host for host in hosts if host], listen),
        )


def _folder(text: str) -> Path | None:
    return Path(text) if text.strip() else None


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
