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
from kaos.reconcilers.children.names import child_name
from kaos.reconcilers.conditions import Finding, Type
from kaos.reconcilers.mcp_query import DEADLINE, CannotAsk
from kaos.reconcilers.settings import Settings
from kaos.runtime import (
    SERVICE,
    Backoff,
    Cache,
    Controller,
    Object,
    Request,
    Result,
    controller_of,
    is_true,
)

WORKERS: Final = 4
EVERY: Final = (240.0, 360.0)
"""Seconds between two questions to one server; at random, so that many do not fall together."""
PATIENCE: Final = 2 * DEADLINE
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
        url: where it was asked.
        tools: by name.
        failure: why it could not be asked the last time; empty when it could.
    """

    uid: str
    url: str
    tools: list[str]
    failure: str = ""

    @classmethod
    def before(cls, server: MCPServer, url: str) -> Self:
        """What was known before we began: what the status says, if it is of this URL."""
        uid = server.metadata.uid or ""
        if server.status.endpoint != url:
            return cls(uid, url, [])
        said = (c.message for c in server.status.conditions if c.type == Type.AVAILABLE)
        failure = next(said, "").partition(FAILED)[2]
        return cls(uid, url, server.status.available_tools, failure)

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
            reconcile_timeout=PATIENCE,
            backoff=BACKOFF,
        )

    def of(self, server: MCPServer) -> Told:
        """What is known of a server."""
        told = self._told.get(Request(server.namespace, server.name))
        url = endpoint(server, self._settings)
        if told is not None and (told.uid, told.url) == (server.metadata.uid, url):
            return told
        return Told.before(server, url)

    async def reconcile(self, request: Request, /) -> Result | None:
        """Ask one server.

        Raises:
            CannotAsk: it did not say; it is asked again, ever later.
        """
        obj = self._cache.get(MCPServer, request.name, request.namespace)
        if obj is None or obj.deleting:
            self._told.pop(request, None)
            return None
        if not _stands(obj):
            return None
        try:
            server = MCPServer.parse(obj.to_dict())
        except InvalidSpecError:
            return None  # which its status says
        if not (remote_url(server) or self._has_own_service(obj, server)):
            return None
        known = self.of(server)
        url = endpoint(server, self._settings)
        outside = bool(remote_url(server) and self._settings.own_labels)
        try:
            tools = await self._ask(locate(url, self._settings.service_map), public=outside)
        except (CannotAsk, OSError) as error:
            self._learn(request, Told(obj.uid, url, known.tools, str(error)))
            # Without the URL: of a remote server it may have a password or a token in it.
            raise CannotAsk(f"not asked for its tools: {error}") from error
        self._learn(request, Told(obj.uid, url, tools))
        return Result(requeue_after=random.uniform(*EVERY))  # noqa: S311 - no secret

    def _has_own_service(self, obj: Object, server: MCPServer) -> bool:
        """Whether the name that is asked is ours: somebody else's Service may lead anywhere."""
        found = self._cache.get(SERVICE, child_name(server), server.namespace)
        owner = found and controller_of(found)
        return bool(
            found and owner and owner.uid == obj.uid and found.spec.get("type") != "ExternalName"
        )

    def _learn(self, request: Request, told: Told) -> None:
        if self._told.get(request) != told:
            self._told[request] = told
            self._news(request)


def _asks_anew(old: Object | None, new: Object | None) -> bool:
    return old is None or new is None or _state(old) != _state(new)


def _state(obj: Object) -> tuple[object, ...]:
    return obj.status.get("endpoint"), obj.status.get("observedGeneration"), _stands(obj)


def _stands(obj: Object) -> bool:
    conditions = obj.status.get("conditions", ())
    return is_true(conditions, Type.ACCEPTED) and is_true(conditions, Type.AVAILABLE)
