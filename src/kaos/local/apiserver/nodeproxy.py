"""What the API server asks of a node, the way the real one calls the kubelet's port.

Guarantees nothing by itself: it is the seam between the API server and the node,
so that neither imports the other.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol


class NodeProxy(Protocol):
    """A node that can open a pod's port and read a container's log."""

    async def open_port(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of a running pod.

        Raises:
            LookupError: The pod does not run here or does not declare the port;
                the message is shown to the user.
        """
        ...

    def read_logs(
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        tail_lines: int | None,
        since_seconds: int | None,
        timestamps: bool,
        previous: bool,
    ) -> AsyncIterator[bytes]:
        """Stream a container's log; ends at its end, or with ``follow`` when the container ends.

        Raises:
            LookupError: There is no such container or no such log.
        """
        ...
