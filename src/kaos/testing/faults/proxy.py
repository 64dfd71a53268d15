"""A proxy that stands between a client and an API server, and misbehaves as its rules say.

Guarantees: what no rule fits passes unchanged, watches as they flow; with the same seed and the
same order of requests the same faults happen; everything is recorded. Upstream it authenticates as
its `ClusterConfig` says (token, client certificate); downstream it listens on the loopback only and
asks for a token of its own, because whoever reaches it acts with the upstream's rights.
Does not: pass upgraded connections on (exec, attach, port-forward); look into bodies, but for the
resourceVersion of an answer that a stale read may repeat; follow a clock other than the loop's.
"""

import asyncio
import hmac
import random
import secrets
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from aiohttp import web

from kaos.runtime import ClusterConfig
from kaos.testing.faults.pump import pump
from kaos.testing.faults.rules import (
    Asked,
    Blackhole,
    Close,
    Delay,
    EndWatch,
    ErrorEvent,
    Fault,
    Refuse,
    Rule,
    Stale,
    error_line,
)
from kaos.testing.faults.stale import Answer, Answers
from kaos.testing.faults.upstream import Upstream, passed_on

_BODY_LIMIT = 4 << 20


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that came by: when (loop time), what, and which fault happened to it."""

    time: float
    asked: Asked
    fault: Fault | None


class FaultProxy:
    """An API server that is another one, with faults; an async context manager.

    Args:
        upstream: The API server behind it.
        rules: Which faults happen; `rules` may be changed at any time.
        seed: Of the dice that `Rule.probability` throws.

    Attributes:
        config: What to give to a `Manager` or `Client`; within the context.
        rules: The rules, asked in order.
        requests: The last 20,000 requests, oldest first.
        passed: How many requests there were.
        faults: How many faults of each kind happened.
    """

    def __init__(self, upstream: ClusterConfig, *rules: Rule, seed: int = 0) -> None:
        self.rules = list(rules)
        self.requests: deque[Passed] = deque(maxlen=20_000)
        self.passed = 0
        self.faults: Counter[str] = Counter()
        self._upstream = Upstream(upstream)
        self._namespace = upstream.namespace
        self._dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self._token = secrets.token_urlsafe(24)
        self._out = False
        self._watches: dict[asyncio.Future[Fault], Asked] = {}
        self._answers = Answers()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._upstream)
            # A handler must end when its client goes: a blackhole has no other end.
            self._server = web.Server(self._handle, handler_cancellation=True, access_log=None)
            runner = web.ServerRunner(self._server, shutdown_timeout=1.0)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            stack.callback(self._abort_all)
            host, port = runner.addresses[0][:2]
            self.config = ClusterConfig.direct(
                f"http://{host}:{port}", self._token, namespace=self._namespace
            )
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @property
    def watches(self) -> list[Asked]:
        """The watches that are open now."""
        return list(self._watches.values())

    @property
    def connections(self) -> int:
        """How many connections of clients are open now."""
        return len(self._server.connections)

    @contextmanager
    def having(self, *rules: Rule) -> Iterator[None]:
        """These rules hold within the block, before all others."""
        self.rules[:0] = rules
        try:
            yield
        finally:
            # By identity: two rules that look the same may both be there.
            gone = {id(rule) for rule in rules}
            self.rules[:] = [rule for rule in self.rules if id(rule) not in gone]

    def strike(self, fault: Close | Blackhole | EndWatch | ErrorEvent, resource: str = "") -> int:
        """Let a fault happen to the watches that are open now; returns to how many.

        Args:
            fault: What happens, at once: `after` does not count.
            resource: Only to watches of this plural.
        """
        struck = [
            signal
            for signal, asked in self._watches.items()
            if not signal.done() and (not resource or asked.resource == resource)
        ]
        for signal in struck:
            signal.set_result(fault)
        self.faults[str(fault)] += len(struck)
        return len(struck)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Within the block the server is away: connections break, new ones too."""
        self._out = True
        self._abort_all()
        try:
            yield
        finally:
            self._out = False

    def _abort_all(self) -> None:
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._out:
            return await self._break(request)
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return _refusal(Refuse(401, "Unauthorized", "the fault proxy's token is needed"))
        if "upgrade" in request.headers.get("Connection", "").lower():
            return _refusal(Refuse(501, "NotImplemented", "the fault proxy passes no upgrades on"))
        asked = Asked.of(request.method, request.path, dict(request.query))
        body = await _read(request)
        if body is None:
            return _refusal(Refuse(413, "RequestEntityTooLarge", "the body is too large"))
        fault = self._choose(asked)
        now = asyncio.get_running_loop().time()
        self.passed += 1
        self.requests.append(Passed(now, asked, fault))
        if fault is not None:
            self.faults[str(fault)] += 1
        try:
            if isinstance(fault, Refuse):
                return _refusal(fault)
            if asked.verb == "watch" or asked.subresource == "log":
                return await self._stream(request, asked, fault)
            return await self._exchange(request, body, asked, fault)
        except (aiohttp.ClientError, OSError):
            # The upstream is away: to the client, a proxy that says so would be another fault.
            return await self._break(request)

    def _choose(self, asked: Asked) -> Fault | None:
        for rule in self.rules:
            if not rule.fits(asked):
                continue
            if isinstance(rule.fault, Stale) and self._answers.find(asked, rule.fault) is None:
                continue
            if rule.probability < 1 and self._dice.random() >= rule.probability:
                continue
            if rule.count is not None:
                rule.count -= 1
            return rule.fault
        return None

    async def _exchange(
        self, request: web.BaseRequest, body: bytes, asked: Asked, fault: Fault | None
    ) -> web.StreamResponse:
        match fault:
            case Close(processed=False):
                return await self._break(request)
            case Blackhole(processed=False):
                await asyncio.Event().wait()
            case Stale() if (old := self._answers.find(asked, fault)) is not None:
                return web.Response(status=old.status, headers=old.headers, body=old.body)
            case Delay(seconds):
                await asyncio.sleep(seconds)
        upstream = await self._upstream.ask(request, body)
        async with upstream:
            content = await upstream.read()
        headers = passed_on(upstream.headers)
        answer = Answer(asyncio.get_running_loop().time(), upstream.status, headers, content)
        self._answers.remember(asked, answer, self.rules)
        match fault:
            case Close():
                return await self._break(request)
            case Blackhole():
                await asyncio.Event().wait()
        return web.Response(status=upstream.status, headers=headers, body=content)

    async def _stream(
        self, request: web.BaseRequest, asked: Asked, fault: Fault | None
    ) -> web.StreamResponse:
        upstream = await self._upstream.ask(request, b"")
        async with upstream:
            response = web.StreamResponse(
                status=upstream.status, headers=passed_on(upstream.headers)
            )
            await response.prepare(request)
            loop = asyncio.get_running_loop()
            signal: asyncio.Future[Fault] = loop.create_future()
            delay = fault.seconds if isinstance(fault, Delay) else 0.0
            timer: asyncio.TimerHandle | None = None
            if isinstance(fault, Close | Blackhole | EndWatch | ErrorEvent):
                timer = loop.call_later(fault.after, _settle, signal, fault)
                if not fault.after:
                    signal.set_result(fault)
            self._watches[signal] = asked
            pumping = asyncio.create_task(pump(upstream, response, delay, signal))
            signal.add_done_callback(lambda _: pumping.cancel())
            try:
                (broke,) = await asyncio.gather(pumping, return_exceptions=True)
            finally:
                del self._watches[signal]
                if timer is not None:
                    timer.cancel()
        match signal.result() if signal.done() else None:
            case None:
                if broke is not None:
                    return await self._break(request)
            case Close():
                return await self._break(request)
            case Blackhole():
                await asyncio.Event().wait()
            case ErrorEvent(says):
                await response.write(error_line(says))
        await response.write_eof()
        return response

    async def _break(self, request: web.BaseRequest) -> web.StreamResponse:
        """Break the connection; with it, this handler is cancelled."""
        if request.transport is not None:
            request.transport.abort()
        await asyncio.Event().wait()
        raise AssertionError


def _settle(signal: asyncio.Future[Fault], fault: Fault) -> None:
    if not signal.done():
        signal.set_result(fault)


def _refusal(says: Refuse) -> web.Response:
    headers = {"Retry-After": str(says.retry_after)} if says.retry_after else None
    return web.Response(
        status=says.status,
        headers=headers,
        body=msgspec.json.encode(says.body()),
        content_type="application/json",
    )


async def _read(request: web.BaseRequest) -> bytes | None:
    """The body; None when there is too much of it."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            return None
    return bytes(body)
