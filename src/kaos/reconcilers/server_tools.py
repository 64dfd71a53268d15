"""Which tools servers have: when each is asked, and what it said.

A reconciler of its own beside the MCPServer's, because an answer may take seconds and no rollout
shall wait for one. It writes nothing: what it learns is for the status, which has one writer.

Guarantees: a server is asked when it becomes available, when its spec changes, and every few
minutes, for a list may change while it runs. What it said is kept while it is away.

Does not: decide whether a server is available. It may let agents in and not us.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

from kaos.api import InvalidSpecError, MCPServer
from kaos.discovery import locate
from kaos.reconcilers.children.mcpserver import endpoint, remote_url
from kaos.reconcilers.conditions import Finding, Type
from kaos.reconcilers.mcp_query import CannotAsk
from kaos.reconcilers.settings import Settings
from kaos.runtime import Backoff, Cache, Controller, Object, Request, Result, is_true

WORKERS: Final = 4
EVERY: Final = (240.0, 360.0)
"""Seconds between two questions to one server; at random, so that many do not fall together."""
BACKOFF: Final = Backoff(first=1.0, last=300.0)
FAILED: Final = "; asked for its tools: "


class Ask(Protocol):
    """How a server is asked; see `mcp_query.list_tools`."""

    def __call__(self, url: str, *, public: bool) -> Awaitable[list[str]]:
        """Its tools, or CannotAsk."""
        ...


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of one server.

    Attributes:
        uid: whose tools they are.
        tools: by name.
        failure: why it could not be asked the last time; empty when it could.
    """

    uid: str
    tools: list[str]
    failure: str = ""

    @classmethod
    def before(cls, server: MCPServer) -> Self:
        """What was known before we began: what the status says."""
        said = (c.message for c in server.status.conditions if c.type == Type.AVAILABLE)
        failure = next(said, "").partition(FAILED)[2]
        return cls(server.metadata.uid or "", server.status.available_tools, failure)

    def beside(self, finding: Finding) -> Finding:
        """The finding, and why tools are not known; agents may well reach the server."""
        if not (finding.ok and self.failure):
            return finding
        return replace(finding, message=f"{finding.message}{FAILED}{self.failure}")


class ServerTools:
    """What servers said, and the reconciler that asks them.

    Args:
        cache: where MCPServers are.
        settings: of the controller.
        ask: how a server is asked.
    """

    def __init__(self, cache: Cache, settings: Settings, ask: Ask) -> None:
        self._cache = cache
        self._settings = settings
        self._ask = ask
        self._told: dict[Request, Told] = {}
        self._news: Callable[[Request], None]

    def controller(self, news: Callable[[Request], None]) -> Controller:
        """What runs it.

        Args:
            news: called with a server of which something else is known now.
        """
        self._news = news
        return Controller(
            "mcpserver-tools",
            self,
            for_=MCPServer,
            predicate=_asks_anew,
            workers=WORKERS,
            backoff=BACKOFF,
        )

    def of(self, server: MCPServer) -> Told:
        """What is known of a server."""
        told = self._told.get(Request(server.namespace, server.name))
        return told if told and told.uid == server.metadata.uid else Told.before(server)

    async def reconcile(self, request: Request, /) -> Result | None:
        """Ask one server.

        Raises:
            CannotAsk: it did not say; it is asked again, ever later.
        """
        obj = self._cache.get(MCPServer, request.name, request.namespace)
        if obj is None or obj.deleting:
            self._told.pop(request, None)
            return None
        if not is_true(obj.status.get("conditions", ()), Type.AVAILABLE):
            return None
        try:
            server = MCPServer.parse(obj.to_dict())
        except InvalidSpecError:
            return None  # which its status says
        known = self.of(server)
        url = endpoint(server, self._settings)
        outside = bool(remote_url(server) and self._settings.own_labels)
        try:
            tools = await self._ask(locate(url, self._settings.service_map), public=outside)
        except (CannotAsk, OSError) as error:
            self._learn(request, Told(obj.uid, known.tools, str(error)))
            raise CannotAsk(f"{url} was not asked for its tools: {error}") from error
        self._learn(request, Told(obj.uid, tools))
        return Result(requeue_after=random.uniform(*EVERY))  # noqa: S311 - no secret

    def _learn(self, request: Request, told: Told) -> None:
        if self._told.get(request) != told:
            self._told[request] = told
            self._news(request)


def _asks_anew(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or _state(old) != _state(new)


def _state(obj: Object) -> tuple[object, ...]:
    status = obj.status
    available = is_true(status.get("conditions", ()), Type.AVAILABLE)
    return status.get("endpoint"), status.get("observedGeneration"), available
