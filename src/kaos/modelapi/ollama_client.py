"""The few calls of Ollama's HTTP API that the puller makes.

Guarantees: a refusal of Ollama is a `PullError` with the words that Ollama (or the registry
behind it) used; an Ollama that is not there is `Unreachable`, which is worth another try.

Does not: retry, or bound the length of a pull; a model of 40 GB takes the time it takes. What
is bounded is silence: `SILENCE` seconds without a byte end the pull as `Unreachable`.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

SILENCE = 120.0


class PullError(Exception):
    """Ollama says that the model cannot be had."""


class Unreachable(Exception):  # noqa: N818 - a state that passes, not a fault
    """Ollama does not answer, or stopped in the middle."""


class OllamaClient:
    """Ollama at a base URL."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self._http = http
        self._base = base.rstrip("/")

    async def models(self) -> set[str]:
        """The names in the store.

        Raises:
            Unreachable: Ollama does not answer.
        """
        document = await self._json("GET", "/api/tags")
        found = document.get("models") or []
        return {str(entry.get("name") or entry.get("model")) for entry in found}

    async def copy(self, source: str, destination: str) -> None:
        """Give a model of the store a second name.

        Raises:
            PullError: Ollama refuses.
            Unreachable: Ollama does not answer.
        """
        await self._json("POST", "/api/copy", {"source": source, "destination": destination})

    async def pull(self, model: str) -> AsyncIterator[dict[str, Any]]:
        """Pull a model; yields the progress lines as they come.

        Raises:
            PullError: The model cannot be had.
            Unreachable: Ollama does not answer, or ended before it was done.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE)
        done = False
        try:
            async with self._http.post(
                f"{self._base}/api/pull", json={"model": model, "stream": True}, timeout=timeout
            ) as response:
                await _raise_for(response)
                async for line in response.content:
                    if not line.strip():
                        continue
                    event = _object(line)
                    if "error" in event:
                        raise PullError(_words(event["error"]))
                    done = event.get("status") == "success"
                    yield event
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        if not done:
            raise Unreachable("the answer ended before the pull was done")

    async def _json(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with self._http.request(
                method, self._base + path, json=body, timeout=timeout
            ) as response:
                await _raise_for(response)
                data = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        return _object(data) if data.strip() else {}


async def _raise_for(response: aiohttp.ClientResponse) -> None:
    if response.status < 400:
        return
    text = await response.text(errors="replace")
    try:
        words = _words(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        words = " ".join(text.split())[:300] or f"HTTP {response.status}"
    raise PullError(words)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise Unreachable(f"not JSON: {line[:100]!r}") from error
    return value if isinstance(value, dict) else {}


def _words(error: object) -> str:
    return " ".join(str(error).split())
