"""One exchange with the API server: the protocol of a transport, and when to try again.

Guarantees: every request has one deadline, and what is tried again gets what is left of it; a 429
or 5xx answer is tried again, after Retry-After, when that is safe. A write that is under way when
its task is cancelled still runs to its answer, so a reconcile is never left wondering whether its
write happened.
Does not: know kinds or objects, or HTTP: `pool.HttpTransport` does. Answers that say no are
returned, not raised.
Which failures taught it: httpx gets slower the more requests are in flight and hangs for ever on
the 101st connection; one 403 made kr8s close the pool under all of its watches.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol
from urllib.parse import urlencode

import anyio

from kaos.runtime.errors import Unreachable

JSON = "application/json"
_RETRIES = 5
_RECONNECTS = 3
_LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to ask.

    Attributes:
        timeout: Seconds for all attempts together; of a stream: until its headers are there.
        idempotent: Whether asking twice does no more than asking once.
        check: Called before each attempt; raises to refuse it. Between two attempts a process may
            have been frozen, or waited for a login, and lost its lease.
        urgent: Whether it waits for no other request, however many there are: the lease.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    timeout: float = 30.0
    idempotent: bool = False
    check: Callable[[], None] | None = field(default=None, compare=False, repr=False)
    urgent: bool = False

    def __str__(self) -> str:
        if "watch" in self.params:
            return f"WATCH {self.path}"
        return f"{self.method} {self.path}" + (f"?{urlencode(self.params)}" if self.params else "")


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete answer."""

    status: int
    body: bytes
    retry_after: float | None = None


class Stream(Protocol):
    """An answer whose body is still coming."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def retry_after(self) -> float | None:
        """The Retry-After header in seconds."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it arrives; raises Unreachable when the connection breaks."""
        ...

    async def read(self) -> bytes:
        """All of the body: for answers that say no."""
        ...


class Transport(Protocol):
    """What the library needs of HTTP. Raises Unreachable when there is no answer."""

    async def request(self, request: HttpRequest) -> HttpResponse:
        """One exchange, without any retry."""
        ...

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[Stream]:
        """A streamed answer on a connection of its own."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


async def send(transport: Transport, request: HttpRequest) -> HttpResponse:
    """A request with retries: of 429 always (it was not processed), of 5xx and breaks when safe."""
    deadline = asyncio.get_running_loop().time() + request.timeout
    delay = 0.1
    for attempt in range(_RETRIES + 1):
        answer: HttpResponse | None = None
        broken: Unreachable | None = None
        if request.check is not None:
            request.check()
        try:
            with anyio.CancelScope(shield=request.method != "GET"):
                answer = await transport.request(request)
        except Unreachable as error:
            broken = error
        wait = min(delay * (1 + random.random()), _LONGEST_WAIT)  # noqa: S311 - jitter
        if answer is not None:
            # A 504 may carry "too large resource version", which only the asker can judge.
            again = answer.status == 429 or (
                request.idempotent and answer.status >= 500 and answer.status != 504
            )
            if not again:
                return answer
            wait = max(wait, answer.retry_after or 0.0)
        out_of_time = asyncio.get_running_loop().time() + wait > deadline
        tries = _RETRIES if broken is None else _RECONNECTS if request.idempotent else 0
        if attempt >= tries or out_of_time:
            if answer is None:
                raise broken or Unreachable(str(request), "no answer")
            return answer
        await asyncio.sleep(wait)
        delay *= 2
        left = deadline - asyncio.get_running_loop().time()
        request = replace(request, timeout=max(left, 0.0))
    raise AssertionError
