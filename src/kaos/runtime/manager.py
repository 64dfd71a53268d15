"""The manager (surface; body follows)."""

from collections.abc import Sequence

import anyio

from kaos.runtime.cache import Cache
from kaos.runtime.client import Client
from kaos.runtime.config import ClusterConfig
from kaos.runtime.controller import Controller
from kaos.runtime.events import EventRecorder
from kaos.runtime.health import HttpServer
from kaos.runtime.leader import LeaderElection
from kaos.runtime.resources import Resource


class Manager:
    """Client, cache, event recorder and controllers, started and stopped in order."""

    client: Client
    cache: Cache
    events: EventRecorder

    def __init__(
        self,
        config: ClusterConfig,
        *,
        field_manager: str = "kaos-runtime",
        namespaces: Sequence[str] = (),
        leader_election: LeaderElection | None = None,
        http: HttpServer | None = None,
        graceful_timeout: float = 30.0,
    ) -> None:
        raise NotImplementedError

    def add(self, *controllers: Controller) -> None:
        """Add controllers; before `run`."""
        raise NotImplementedError

    def watch(self, resource: Resource, *, optional: bool = False) -> None:
        """Keep a kind in the cache without a controller; before `run`."""
        raise NotImplementedError

    async def run(self, *, started: anyio.Event | None = None) -> None:
        """Run until cancelled.

        Args:
            started: Set when the controllers' kinds are synced and the workers run.
        """
        raise NotImplementedError
