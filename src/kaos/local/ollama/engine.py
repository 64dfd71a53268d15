"""The model's process, seen from the server.

Guarantees: the process is started by the first request that needs it (or by `load`), once,
however many ask at once; if it dies, the request at hand fails and the next one starts it
again; the weights' sha256 is compared before each start, so a damaged file is reported as
`WeightsGone` and not loaded; `close` ends it, and it ends by itself when this process is gone.

Does not: bound the number of requests. llama.cpp queues what its slots cannot take.

Why a child: llama.cpp's threads are native. In our process a fault in them would take the
server along, their memory could not be given back, and a signal in the middle of a load would
wait for its end.
"""

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from kaos.local.ollama.catalogue import Weights
from kaos.local.ollama.store import Store

LOAD_TIMEOUT = 60.0
SILENCE = 300.0  # a long prompt is read without a word, at some 500 tokens a second

log = structlog.get_logger(__name__)


class EngineError(Exception):
    """The model's process could not be started, or went away."""


class WeightsGoneError(EngineError):
    """The weights are not in the cache, or were damaged and are removed."""


class RefusedError(Exception):
    """llama.cpp refuses a request.

    Attributes:
        status: The HTTP status it gave.
        error: Its error object.
    """

    def __init__(self, status: int, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message") or f"HTTP {status}"))
        self.status = status
        self.error = error


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the model is run.

    Attributes:
        threads: For computing; one is best unless the machine is idle.
        slots: Requests at a time.
        context: Tokens a request may have, prompt and answer together.
    """

    threads: int = 1
    slots: int = 2
    context: int = 4096


class Engine:
    """One model's process."""

    def __init__(self, weights: Weights, store: Store, settings: EngineSettings) -> None:
        self.settings = settings
        self._weights = weights
        self._store = store
        self._key = secrets.token_urlsafe(24)
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._http: aiohttp.ClientSession | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process else None

    async def load(self) -> aiohttp.ClientSession:
        """Start the process unless it runs.

        Raises:
            WeightsGoneError: There are no weights to load.
            EngineError: It cannot be started.
        """
        async with self._lock:
            if self._http is not None and self._process and self._process.returncode is None:
                return self._http
            await self._end()
            if not await asyncio.to_thread(self._store.check, self._weights):
                raise WeightsGoneError("the weights are not in the cache, or were damaged")
            url = await self._start(self._store.path(self._weights))
            self._http = aiohttp.ClientSession(
                url,
                headers={"Authorization": f"Bearer {self._key}"},
                timeout=aiohttp.ClientTimeout(total=None, sock_read=SILENCE),
                connector=aiohttp.TCPConnector(limit=0),
            )
            return self._http

    async def close(self) -> None:
        """End the process."""
        async with self._lock:
            await self._end()

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ask for a chat completion.

        Raises:
            RefusedError: The request is refused.
            EngineError: There is no process, or it went away.
        """
        async with self._ask({**body, "stream": False}) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def stream(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Ask for a chat completion in chunks; the last one carries the usage.

        Raises:
            RefusedError: The request is refused, before the first chunk.
            EngineError: There is no process, or it went away.
        """
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async with self._ask({**body, **options}) as response:
            async for line in response.content:
                data = line.removeprefix(b"data: ").strip()
                if not line.startswith(b"data: ") or data == b"[DONE]":
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise EngineError(str(chunk["error"].get("message", chunk["error"])))
                yield chunk

    @contextlib.asynccontextmanager
    async def _ask(self, body: dict[str, Any]) -> AsyncIterator[aiohttp.ClientResponse]:
        http = await self.load()
        try:
            async with http.post("/v1/chat/completions", json=body) as response:
                if response.status != 200:
                    raise await _refusal(response)
                yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EngineError(f"the model's process went away: {error}") from error

    async def _start(self, path: Path) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kaos.local.ollama.llama", str(path)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._process = process
        assert process.stdin is not None  # noqa: S101 - asked for above
        assert process.stdout is not None  # noqa: S101
        settings = {
            "key": self._key,
            "threads": self.settings.threads,
            "slots": self.settings.slots,
            "context": self.settings.context,
        }
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                process.stdin.write(json.dumps(settings).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except (OSError, TimeoutError) as error:
            await self._end()
            raise EngineError(f"the model was not loaded: {error!r}") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        said = json.loads(line) if line else {"error": "the process ended while loading it"}
        if "url" not in said:
            await self._end()
            raise EngineError(f"the model cannot be loaded: {said['error']}")
        log.info("model loaded", weights=self._weights.member, pid=process.pid)
        return str(said["url"])

    async def _end(self) -> None:
        http, self._http = self._http, None
        process, self._process = self._process, None
        if http is not None:
            await http.close()
        if process is not None:
            if process.returncode is None:
                process.kill()  # it has nothing to save
            else:
                log.warning("the model's process had ended", status=process.returncode)
            await process.wait()


async def _refusal(response: aiohttp.ClientResponse) -> RefusedError:
    try:
        error = (await response.json())["error"]
    except (ValueError, KeyError, aiohttp.ClientError):
        error = {}
    return RefusedError(response.status, error if isinstance(error, dict) else {"message": error})
