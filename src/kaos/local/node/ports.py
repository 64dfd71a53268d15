"""Ports of this machine for pods and Services.

Guarantees: a port is given out once until it is released, is free on 127.0.0.1 when it is given
out, and lies below the range that the system hands out for outgoing connections: a port of that
range may be taken by any client between the moment it is chosen and the moment a pod listens.

Does not: hold the port open meanwhile; a program outside of the cluster may still take it.
"""

import json
import secrets
import socket
from collections.abc import Iterable, Mapping

ANNOTATION = "kaos.tools/host-ports"
"""On a pod: {"<container port>": <host port>} as JSON."""

POD_PORTS = range(20000, 30000)
SERVICE_PORTS = range(30000, 32768)


class PortsExhausted(Exception):  # noqa: N818
    """No free port is left in a range."""


class PortPool:
    """Gives out ports of one range, in turn."""

    def __init__(self, ports: range) -> None:
        self._range = ports
        self._used: set[int] = set()
        # Two clusters that start at the same time should not both try the same ports.
        self._next = secrets.randbelow(len(ports))

    def take(self, wanted: int | None = None) -> int:
        """Take a free port: the wanted one when it can be had.

        Raises:
            PortsExhausted: None is free.
        """
        if wanted is not None and self._take(wanted):
            return wanted
        for _ in self._range:
            port = self._range[self._next % len(self._range)]
            self._next += 1
            if self._take(port):
                return port
        first, last = self._range[0], self._range[-1]
        raise PortsExhausted(f"no port between {first} and {last} is free on 127.0.0.1")

    def release(self, ports: Iterable[int]) -> None:
        """Give ports back."""
        self._used.difference_update(ports)

    def _take(self, port: int) -> bool:
        if port in self._used or not is_free(port):
            return False
        self._used.add(port)
        return True


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that is long closed must not make a port look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def recorded(annotations: Mapping[str, str]) -> dict[int, int]:
    """Host port by container port, from a pod's annotation; {} when there is none."""
    try:
        found = json.loads(annotations.get(ANNOTATION) or "{}")
        return {int(port): int(host) for port, host in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def record(ports: Mapping[int, int]) -> str:
    """The annotation's value."""
    return json.dumps({str(port): host for port, host in ports.items()}, separators=(",", ":"))
