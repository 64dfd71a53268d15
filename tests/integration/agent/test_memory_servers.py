"""Sessions in real servers: the same contract, the server's loss, and replicas of an agent."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from kaos.agent.app import create_app
from kaos.agent.memory.open import open_store
from kaos.agent.memory.store import Limits, Store, StoreError
from kaos.agent.settings import Settings, SettingsError
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel
from tests.integration.agent.servers import Server, free_port
from tests.unit.agent.store_contract import KEY, Clock, StoreContract, texts, turn

pytest.importorskip("redis")
pytest.importorskip("asyncpg")

from kaos.agent.memory.postgres import PostgresStore
from kaos.agent.memory.redis import RedisStore

SECRET = "very-secret"


class ServerContract(StoreContract):
    """What is asked of a store with a server behind it, beside what is asked of all."""

    examples = 8
    server: Server

    async def test_a_server_that_is_down_is_an_error_within_seconds(self) -> None:
        async with self.opened() as store:
            await store.append(KEY, turn("one"))
            self.server.stop()
            try:
                started = time.monotonic()
                with pytest.raises(StoreError, match=r"127\.0\.0\.1") as caught:
                    await store.load(KEY)
                with pytest.raises(StoreError):
                    await store.append(KEY, turn("lost"))
                assert time.monotonic() - started < 8
                assert SECRET not in str(caught.value)
            finally:
                self.server.start()
            assert await texts(store, KEY) == ["one"], "it is used again when it is back"
            await store.append(KEY, turn("two"))
            assert await texts(store, KEY) == ["one", "two"]

    async def test_a_server_that_says_nothing_is_an_error_within_seconds(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            store = self.at(silent.getsockname()[1], "agent", Limits(), Clock())
            started = time.monotonic()
            with pytest.raises(StoreError):
                await store.load(KEY)
            assert time.monotonic() - started < 8
            await store.close()

    async def test_more_requests_than_connections_wait_for_one(self) -> None:
        """Redis's client has a hundred, and refused whoever was beyond at once."""
        async with self.opened() as store:
            await store.append(KEY, turn("one"))
            found = await asyncio.gather(*(texts(store, KEY) for _ in range(400)))
            assert found == [["one"]] * 400

    async def test_a_store_of_an_agent_that_starts_before_its_server(self) -> None:
        store = self.at(free_port(), "agent", Limits(), Clock())
        with pytest.raises(StoreError):
            await store.load(KEY)
        await store.close()

    def at(self, port: int, agent: str, limits: Limits, clock: Clock) -> Store:
        raise NotImplementedError

    def make(self, agent: str, limits: Limits, clock: Clock) -> Store:
        return self.at(self.server.port, agent, limits, clock)


class TestRedis(ServerContract):
    ttl = 0.4

    @pytest.fixture(autouse=True)
    def use(self, redis: Server) -> None:
        self.server = redis

    def at(self, port: int, agent: str, limits: Limits, clock: Clock) -> Store:
        return RedisStore(f"redis://127.0.0.1:{port}/0", agent, limits, clock)

    async def pass_ttl(self, clock: Clock) -> None:
        await asyncio.sleep(self.ttl + 0.1)
        clock.now += self.ttl


class TestPostgres(ServerContract):
    @pytest.fixture(autouse=True)
    def use(self, postgres: Server) -> None:
        self.server = postgres

    def at(self, port: int, agent: str, limits: Limits, clock: Clock) -> Store:
        url = f"postgresql://postgres:{SECRET}@127.0.0.1:{port}/postgres"
        return PostgresStore(url, agent, limits, clock)

    async def test_hosts_of_which_none_is_the_primary_now_are_an_error_of_the_store(self) -> None:
        url = f"postgresql://postgres@127.0.0.1:{self.server.port}/postgres"
        store = PostgresStore(f"{url}?target_session_attrs=standby", "agent", Limits(), Clock())
        with pytest.raises(StoreError, match="None of the hosts"):
            await store.load(KEY)
        await store.close()

    async def test_replicas_that_start_at_once_make_the_tables_once(self) -> None:
        async with self.opened() as store:
            await store.load(KEY)
            await store._run(  # type: ignore[attr-defined]
                [("DROP TABLE kaos_turn", ()), ("DROP TABLE kaos_session", ())]
            )
        async with AsyncExitStack() as stack:
            replicas = [await stack.enter_async_context(self.opened("a")) for _ in range(6)]
            await asyncio.gather(*(one.append(KEY, turn("x")) for one in replicas))
            assert len(await texts(replicas[0], KEY)) == 6


@pytest.fixture(params=["redis", "postgres"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    server: Server = request.getfixturevalue(request.param)
    url = {
        "redis": f"redis://127.0.0.1:{server.port}",
        "postgres": f"postgresql://postgres@127.0.0.1:{server.port}/postgres",
    }[request.param]
    return {"memory_type": request.param, "memory_url": url}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_conversation_goes_on_at_another_replica(
    settings: dict[str, Any], http: aiohttp.ClientSession
) -> None:
    model = ScriptedModel()
    model.say("ok", repeat=True)
    name = f"agent-{time.time_ns()}"
    async with AsyncExitStack() as stack:
        model_url = await stack.enter_async_context(model.serve())
        given: dict[str, Any] = {"name": name, "model_api_url": model_url, "model_name": "m"}
        replicas = [
            await stack.enter_async_context(
                serving.running(create_app(Settings(**given, **settings)))
            )
            for _ in range(3)
        ]

        async def say(number: int) -> None:
            body = {"messages": [{"role": "user", "content": f"{number}"}]}
            url = f"{replicas[number % 3]}/v1/chat/completions"
            async with http.post(url, json=body, headers={"x-session-id": "s"}) as answer:
                assert answer.status == 200

        for number in range(6):
            await say(number)
        shown = [m["content"] for m in model.requests[-1].messages]
        assert shown == ["0", "ok", "1", "ok", "2", "ok", "3", "ok", "4", "ok", "5"]
        await asyncio.gather(*(say(number) for number in range(6, 30)))
        async with http.get(f"{replicas[0]}/sessions/s") as answer:
            found = [m["content"] for m in (await answer.json())["messages"]]
        assert sorted(found[::2], key=int) == [f"{n}" for n in range(30)]
        assert set(found[1::2]) == {"ok"}


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("redis", "redis://:se/cret@h:6379/0"),
        ("redis", "redis://h:99999/0"),
        ("postgres", "postgresql://u:se/cret@h:5432/db"),
        ("postgres", "postgresql://u:se#cret@h/db"),
        ("postgres", "postgresql://u:se?cret@h/db"),
    ],
)
def test_a_password_that_breaks_its_url_is_told_at_the_start(kind: str, url: str) -> None:
    """Redis's client ended the process with a trace, Postgres's failed at each request; both
    quoted a part of the password.
    """
    given: dict[str, Any] = {"name": "a", "model_api_url": "http://m", "model_name": "m"}
    with pytest.raises(SettingsError, match=r"in a password / is %2F") as caught:
        open_store(Settings(memory_type=kind, memory_url=url, **given))  # type: ignore[arg-type]
    assert caught.value.__suppress_context__
    assert "'se'" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("redis", "unix:///tmp/redis.sock?db=1"),
        ("redis", "redis://u:p%2F@h:1/0"),
        ("postgres", "postgresql:///db?user=me@server"),
        ("postgres", "postgresql://u:p@a:1,b:2/db?target_session_attrs=read-write"),
    ],
)
async def test_urls_of_all_kinds_are_taken(kind: str, url: str) -> None:
    given: dict[str, Any] = {"name": "a", "model_api_url": "http://m", "model_name": "m"}
    settings = Settings(memory_type=kind, memory_url=url, **given)  # type: ignore[arg-type]
    await open_store(settings).close()


def test_a_client_that_is_not_installed_is_named(settings: dict[str, Any]) -> None:
    # In a process of its own, where the client library cannot be imported.
    kind = settings["memory_type"]
    client = {"redis": "redis", "postgres": "asyncpg"}[kind]
    code = (
        f"import sys; sys.modules[{client!r}] = None\n"
        "from kaos.agent.settings import Settings\n"
        "from kaos.agent.memory.open import open_store\n"
        f"open_store(Settings(name='a', model_api_url='http://m', model_name='m', **{settings!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'kaos[{kind}]'" in done.stderr
