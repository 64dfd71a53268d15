"""Leader election on a Lease: at most one replica writes.

Guarantees: only the local clock is used, so clocks of replicas need not agree. A leader that could
not renew for `renew_deadline` gives up before anybody else may take the lease; and because a frozen
process or a blocked event loop cannot give up in time, `check`, which the client calls before every
write, compares the deadline itself: no write begins after it. A second clock, which goes on while
the machine is suspended (Python's own stands still then), guards against waking up as a leader
whose lease somebody else took long ago; and one that finds the lease released by somebody else is
not its leader any more, whatever it remembers. The lease is released last, when nothing of ours
writes any more. A request of the election ends when it can no longer help, although other writes
run to their answer (`transport.send`), and it waits for no other request.
Does not: recall a write that was already sent when the process froze (the API has no fencing
tokens); conditional writes refuse those.
Which failures taught it: two leaders after a pause (kubernetes#23731), a lease that cannot be
renewed while the pod reports ready (controller-runtime#3298), a release lost to a conflict; a write
of the lease that hung for 30 s, while the next leader worked; a lease lost behind 64 slow writes,
and one to a single connection that an API server, gone without a word, had left dead.
"""

import asyncio
import math
import random
import secrets
import socket
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import anyio
import structlog

from kaos.runtime.client import Client
from kaos.runtime.codec import Object
from kaos.runtime.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    LeadershipLost,
    NotFound,
    NotLeader,
    Unreachable,
)
from kaos.runtime.resources import LEASE
from kaos.runtime.transport import HttpRequest, HttpResponse, Stream, Transport

_JITTER = 0.2
_TOO_LITTLE = 0.05  # time for another attempt
_RELEASE_TRIES = 3
_RELEASE_TIMEOUT = 5.0
_log = structlog.get_logger("kaos.runtime")


def awake() -> float:
    """Seconds of a clock that also counts while the machine sleeps."""
    # macOS has no CLOCK_BOOTTIME; there CLOCK_MONOTONIC counts, and Python's own clock does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Settings of the election: one Lease, held by at most one replica.

    Attributes:
        name: The Lease's name.
        namespace: Its namespace.
        identity: Who we are; default: host name and a random suffix.
        lease_duration: Seconds after which others may take an unrenewed lease.
        renew_deadline: Seconds after which we give up ourselves.
        retry_period: Seconds between attempts.
    """

    name: str
    namespace: str
    identity: str = ""
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0

    def __post_init__(self) -> None:
        if not self.lease_duration > self.renew_deadline > self.retry_period * (1 + _JITTER) > 0:
            raise ValueError(
                "leader election: lease_duration > renew_deadline > 1.2 x retry_period is needed"
            )


class Elector:
    """Takes, renews and releases the lease, by the client's transport."""

    def __init__(self, client: Client, settings: LeaderElection) -> None:
        self._express = _Express(client.transport)
        self._client = Client(self._express, field_manager=client.field_manager)
        self._settings = settings
        host = socket.gethostname()
        self.identity = settings.identity or f"{host}_{secrets.token_hex(4)}"
        self._observed: tuple[str, float] = ("", 0.0)
        self._deadline = float("-inf")
        self._asleep = float("inf")
        self._answered = float("-inf")
        self._renewing = False
        self._log = _log.bind(lease=f"{settings.namespace}/{settings.name}", identity=self.identity)

    @property
    def leading(self) -> bool:
        """Whether the lease is ours and its deadline has not passed."""
        return asyncio.get_running_loop().time() < self._deadline and awake() < self._asleep

    def check(self) -> None:
        """Raise NotLeader unless we lead now: called before each write."""
        if not self.leading:
            raise NotLeader("write refused: the leader lease is not held")

    def healthy(self) -> bool:
        """Whether the lease was read or written within its duration."""
        now = asyncio.get_running_loop().time()
        return now - self._answered < self._settings.lease_duration

    async def acquire(self) -> None:
        """Wait until we lead."""
        self._log.info("leader.waiting")
        self._renewing = False
        while not await self._try():
            await self._pause()
        self._renewing = True
        self._log.info("leader.elected")

    async def renew(self) -> None:
        """Keep the lease; raises LeadershipLost when that failed for too long."""
        while True:
            await self._pause(until=self._deadline)
            renewed = await self._try()
            left = self._deadline - asyncio.get_running_loop().time()
            if not self.leading or (not renewed and left < _TOO_LITTLE):
                self._log.error("leader.lost")
                raise LeadershipLost(
                    f"lease {self._settings.namespace}/{self._settings.name} was not renewed "
                    f"within {self._settings.renew_deadline:g} s"
                )

    async def release(self) -> None:
        """Give the lease up, so that another replica need not wait for it to expire."""
        self._deadline = float("-inf")
        self._express.until = asyncio.get_running_loop().time() + _RELEASE_TIMEOUT
        with anyio.move_on_after(_RELEASE_TIMEOUT, shield=True):
            for _ in range(_RELEASE_TRIES):
                try:
                    lease = await self._client.get(LEASE, *self._name())
                    if lease.spec.get("holderIdentity") != self.identity:
                        return
                    spec = self._spec(lease, holder="", duration=1)
                    await self._client.update(self._body(spec, lease))
                    self._log.info("leader.released")
                    return
                except Conflict:
                    continue
                except (ApiError, Unreachable) as error:
                    self._log.info("leader.release_failed", error=str(error))
                    return

    async def _pause(self, *, until: float = math.inf) -> None:
        period = self._settings.retry_period * (1 + _JITTER * random.random())  # noqa: S311 - jitter
        left = until - asyncio.get_running_loop().time()
        await anyio.sleep(max(min(period, left), 0.0))

    async def _try(self) -> bool:
        """One attempt to take or renew the lease, given up when it could no longer help."""
        now, settings = asyncio.get_running_loop().time(), self._settings
        left = settings.renew_deadline
        if self.leading:
            left = self._deadline - now
        elif self._renewing:  # we were frozen, or it failed so far; nobody else may lead yet
            left = (settings.lease_duration - settings.renew_deadline) / 2
        self._express.until = now + left
        try:
            with anyio.fail_after(left):
                return await self._take()
        except TimeoutError:
            self._log.warning("leader.slow")
        except (Conflict, AlreadyExists):
            return False  # somebody was faster
        except (ApiError, Unreachable) as error:
            self._log.warning("leader.failed", error=str(error))
        return False

    async def _take(self) -> bool:
        loop = asyncio.get_running_loop()
        started, woke = loop.time(), awake()
        try:
            lease = await self._client.get(LEASE, *self._name())
        except NotFound:
            lease = None
        self._answered = loop.time()
        if lease is None:
            await self._client.create(self._body(self._spec(None), None))
        else:
            spec = lease.spec
            holder = spec.get("holderIdentity") or ""
            version = lease.metadata.resource_version
            if version != self._observed[0]:
                self._observed = (version, loop.time())
            expires = self._observed[1] + float(spec.get("leaseDurationSeconds") or 0)
            theirs = holder not in ("", self.identity) and loop.time() < expires
            # Who wakes up to find the lease free again has missed another leader's time.
            if theirs or (self._renewing and holder != self.identity):
                self._deadline = float("-inf")
                return False
            await self._client.update(self._body(self._spec(lease), lease))
        # Counted from before the request: others count from when the server saw it, later.
        self._answered = loop.time()
        self._deadline = started + self._settings.renew_deadline
        self._asleep = woke + self._settings.renew_deadline
        return True

    def _name(self) -> tuple[str, str]:
        return self._settings.name, self._settings.namespace

    def _spec(
        self, lease: Object | None, *, holder: str | None = None, duration: float | None = None
    ) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = lease.spec if lease is not None else {}
        holder = self.identity if holder is None else holder
        changed = old.get("holderIdentity") != holder
        return {
            **old,
            "holderIdentity": holder,
            # In whole seconds, and never less than our own deadline was checked against.
            "leaseDurationSeconds": math.ceil(duration or self._settings.lease_duration),
            "acquireTime": now if changed else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if changed else 0),
        }

    def _body(self, spec: dict[str, Any], lease: Object | None) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "name": self._settings.name,
            "namespace": self._settings.namespace,
        }
        if lease is not None:
            metadata["resourceVersion"] = lease.metadata.resource_version
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": spec,
        }


class _Express:
    """`Transport` for the lease: each request ends at `until`, and waits for no other."""

    def __init__(self, transport: Transport) -> None:
        self.until = float("inf")
        self._transport = transport

    async def request(self, request: HttpRequest) -> HttpResponse:
        left = max(self.until - asyncio.get_running_loop().time(), 0.0)
        if request.method == "GET":
            left /= 2  # its connection may be dead: time for another one
        request = replace(request, timeout=min(request.timeout, left), urgent=True)
        return await self._transport.request(request)

    def stream(self, request: HttpRequest) -> AbstractAsyncContextManager[Stream]:
        return self._transport.stream(request)

    async def close(self) -> None:
        await self._transport.close()
