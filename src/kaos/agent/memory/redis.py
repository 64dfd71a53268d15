"""Sessions in Redis (or Valkey), for an agent with replicas: the extra `[redis]` (redis-py).

Guarantees: an append is one script, so it is atomic and a turn is never half there; expiry is
Redis's own. All keys of an agent share a hash tag, so that they are on one node of a cluster.

A Redis that is told to evict (`maxmemory-policy allkeys-*`) or to keep nothing on disk may
forget sessions earlier: that is its operator's choice.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from kaos.agent.memory.store import (
    MAX_SESSION_BYTES,
    RECENT,
    Key,
    Limits,
    SessionInfo,
    Stored,
    StoreError,
    Turn,
)

CONNECTIONS = 32
TIMEOUT = 2.0
_PAGE = 1000

# A turn is "<id> <messages> <body>". Numbers are passed as text, which Redis wants anyway.
_APPEND = """
local meta, turns, index = KEYS[1], KEYS[2], KEYS[3]
local member, now, id, count, body = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local max_messages, max_bytes = tonumber(ARGV[6]), tonumber(ARGV[7])
local ttl, max_sessions, prefix = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10]
if redis.call('EXISTS', meta) == 0 then
  redis.call('DEL', turns)
  redis.call('HSET', meta, 'created', now)
end
local known = false
for _, turn in ipairs(redis.call('LRANGE', turns, -tonumber(ARGV[11]), -1)) do
  known = known or string.sub(turn, 1, #id + 1) == id .. ' '
end
if not known then
  redis.call('RPUSH', turns, id .. ' ' .. count .. ' ' .. body)
  redis.call('HINCRBY', meta, 'messages', count)
  redis.call('HINCRBY', meta, 'bytes', #body)
end
local messages = tonumber(redis.call('HGET', meta, 'messages'))
local bytes = tonumber(redis.call('HGET', meta, 'bytes'))
while (messages > max_messages or bytes > max_bytes) and redis.call('LLEN', turns) > 1 do
  local _, last, dropped = string.find(redis.call('LINDEX', turns, 0), '^%S+ (%d+) ')
  local size = #redis.call('LPOP', turns) - last
  messages = redis.call('HINCRBY', meta, 'messages', -tonumber(dropped))
  bytes = redis.call('HINCRBY', meta, 'bytes', -size)
end
redis.call('HSET', meta, 'updated', now)
redis.call('PEXPIRE', meta, ttl)
redis.call('PEXPIRE', turns, ttl)
redis.call('ZADD', index, now, member)
redis.call('ZREMRANGEBYSCORE', index, '-inf', tonumber(now) - ttl / 1000)
redis.call('PEXPIRE', index, ttl)
local excess = redis.call('ZCARD', index) - max_sessions
if excess > 0 then
  local old = redis.call('ZPOPMIN', index, excess)
  for i = 1, #old, 2 do
    redis.call('DEL', prefix .. 'meta:' .. old[i], prefix .. 'turns:' .. old[i])
  end
end
return 1
"""


class RedisStore:
    """See `kaos.agent.memory.store.Store`.

    Args:
        url: `redis://…`, `rediss://…` or `unix://…`.
        agent: Whose sessions.
        limits: How much is kept.
        clock: Tells the time; expiry is by Redis's own clock.
    """

    def __init__(
        self, url: str, agent: str, limits: Limits, clock: Callable[[], float] = time.time
    ) -> None:
        self._host = urlsplit(url).hostname
        self._limits = limits
        self._clock = clock
        self._prefix = f"kaos:{{{agent}}}:"
        self._index = f"{self._prefix}index"
        # Blocking: the client's own pool refuses at once whoever is beyond its limit.
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=CONNECTIONS,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # One more try, for a connection that was closed while it lay idle.
            retry=Retry(NoBackoff(), 1),
        )
        self._redis = Redis.from_pool(pool)
        self._append = self._redis.register_script(_APPEND)

    async def load(self, key: Key) -> Stored | None:
        """See `Store`."""
        meta_key, turns_key = self._keys(_member(key))
        async with self._pipeline() as pipe:
            pipe.hmget(meta_key, "created", "updated")
            pipe.lrange(turns_key, 0, -1)
            (created, updated), turns = await pipe.execute()
        if created is None or not turns:
            return None
        return Stored(float(created), float(updated), [turn.split(b" ", 2)[2] for turn in turns])

    async def append(self, key: Key, turn: Turn) -> None:
        """See `Store`."""
        member = _member(key)
        async with self._errors():
            await self._append(
                keys=[*self._keys(member), self._index],
                args=[
                    member,
                    repr(self._clock()),
                    turn.id,
                    turn.messages,
                    turn.body,
                    self._limits.messages,
                    MAX_SESSION_BYTES,
                    int(self._limits.ttl * 1000),
                    self._limits.sessions,
                    self._prefix,
                    RECENT,
                ],
            )

    async def sessions(
        self, owner: str, limit: int, before: float | None = None
    ) -> list[SessionInfo]:
        """See `Store`."""
        found: list[SessionInfo] = []
        newest = "+inf" if before is None else f"({before!r}"
        start = 0
        while len(found) < limit:
            async with self._errors():
                page: Any = await self._redis.zrevrangebyscore(
                    self._index, newest, "-inf", start=start, num=_PAGE
                )
            start += _PAGE
            members = [str(member, "utf-8") for member in page]
            own = [member for member in members if _key(member).owner == owner]
            found += await self._infos(own)
            if len(page) < _PAGE:
                break
        return found[:limit]

    async def delete(self, key: Key) -> bool:
        """See `Store`."""
        member = _member(key)
        async with self._pipeline() as pipe:
            pipe.delete(*self._keys(member))
            pipe.zrem(self._index, member)
            deleted, _ = await pipe.execute()
        return bool(deleted)

    async def close(self) -> None:
        """See `Store`."""
        await self._redis.aclose()

    async def _infos(self, members: list[str]) -> list[SessionInfo]:
        async with self._pipeline() as pipe:
            for member in members:
                pipe.hmget(self._keys(member)[0], "created", "updated", "messages")
            rows: list[Any] = await pipe.execute()
        # What has expired may be in the index until the next append.
        return [
            SessionInfo(_key(member).session, float(created), float(updated), int(messages))
            for member, (created, updated, messages) in zip(members, rows, strict=True)
            if created is not None
        ]

    def _keys(self, member: str) -> tuple[str, str]:
        return f"{self._prefix}meta:{member}", f"{self._prefix}turns:{member}"

    @asynccontextmanager
    async def _pipeline(self) -> AsyncIterator[Any]:
        """Collect commands that are run as one; typed as the commands would be, it is no use."""
        async with self._errors(), self._redis.pipeline(transaction=True) as pipe:
            yield pipe

    @asynccontextmanager
    async def _errors(self) -> AsyncIterator[None]:
        try:
            yield
        except (RedisError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise StoreError(f"the sessions in Redis at {self._host}: {why}") from error


def _member(key: Key) -> str:
    # A session's id has no slash in it.
    return f"{key.owner}/{key.session}"


def _key(member: str) -> Key:
    owner, _, session = member.rpartition("/")
    return Key(owner, session)
