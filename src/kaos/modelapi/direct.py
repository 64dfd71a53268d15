"""An OpenAI-compatible upstream, asked directly.

Guarantees: the answer's bytes reach the client as they come, unchanged, streamed or not, and
so do the upstream's status and the headers that clients act upon (`retry-after`, rate limits).
An error that is not OpenAI's is made one; an upstream that does not answer is 502, a silent one
504; a stream that breaks off ends with an error event, which the official clients raise. When
the client goes away, the upstream's connection is closed.

Does not: retry (the clients do, and know when they may), pass the caller's `Authorization` on
(it was meant for us), or limit how many requests the upstream gets.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import aiohttp
import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kaos import __version__, discovery
from kaos.modelapi.config import ConfigError, Target, Upstream
from kaos.modelapi.errors import OpenAIError
from kaos.modelapi.http import unless_gone

log = structlog.get_logger(__name__)

_ASKED = ("accept", "accept-encoding", "traceparent", "tracestate", "baggage")
_ANSWERED = (
    *("content-type", "content-encoding", "retry-after", "retry-after-ms", "x-should-retry"),
    *("openai-processing-ms", "openai-version"),
)


class Direct:
    """The upstreams that speak OpenAI's API."""

    def __init__(self, http: aiohttp.ClientSession, env: Mapping[str, str]) -> None:
        self._http = http
        self._env = env

    async def ask(
        self, request: Request, path: str, body: dict[str, Any], target: Target
    ) -> Response:
        """Pass a request on.

        Args:
            request: From the client; its body has been read.
            path: Below the upstream's base URL.
            body: The request's body.
            target: Where it goes.

        Raises:
            OpenAIError: The upstream gives no answer that could be passed on.
            ClientGoneError: Nobody waits for it.
        """
        stack = contextlib.AsyncExitStack()
        try:
            answer = await unless_gone(request, self._send(stack, request, path, body, target))
            _check_place(answer, target.upstream)
            kind = answer.headers.get("content-type", "")
            if answer.status >= 400 and "json" not in kind:
                await _refuse(answer, target.upstream)
        except (aiohttp.ClientError, TimeoutError, discovery.ServiceNotFound) as error:
            await stack.aclose()
            raise _no_answer(target.upstream, error) from error
        except BaseException:
            await stack.aclose()
            raise
        headers = {
            name: value
            for name, value in answer.headers.items()
            if name.lower() in _ANSWERED or name.lower().startswith("x-ratelimit-")
        }
        if "event-stream" in kind:
            headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        stream = _relay(stack, answer, target.upstream, is_stream="event-stream" in kind)
        return StreamingResponse(stream, status_code=answer.status, headers=headers)

    async def _send(
        self,
        stack: contextlib.AsyncExitStack,
        request: Request,
        path: str,
        body: dict[str, Any],
        target: Target,
    ) -> aiohttp.ClientResponse:
        upstream = target.upstream
        base = discovery.locate(str(upstream.api_base)).rstrip("/")
        headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
        headers.setdefault("accept-encoding", "identity")  # else aiohttp asks for gzip
        headers["content-type"] = "application/json"
        headers["user-agent"] = f"kaos-modelapi/{__version__}"
        if key := api_key(upstream, self._env):
            headers["authorization"] = f"Bearer {key}"
        data = await request.body()
        if body.get("model") != target.model:
            data = json.dumps({**body, "model": target.model}).encode()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=upstream.timeout)
        return await stack.enter_async_context(
            self._http.post(f"{base}/{path}", data=data, headers=headers, timeout=timeout)
        )


def session() -> aiohttp.ClientSession:
    """The connections to upstreams; bytes come as they were sent, compressed or not."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30), auto_decompress=False
    )


def api_key(upstream: Upstream, env: Mapping[str, str]) -> str | None:
    """The key of an upstream, or None if it needs none.

    Raises:
        ConfigError: There is nothing where it should be.
    """
    if upstream.api_key_env:
        where, key = f"variable {upstream.api_key_env}", env.get(upstream.api_key_env, "")
    elif upstream.api_key_file:
        where = str(upstream.api_key_file)
        try:
            key = upstream.api_key_file.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"model {upstream.name}: cannot read {where}: {error}") from error
    else:
        return None
    if not key.strip():
        raise ConfigError(f"model {upstream.name}: the API key in {where} is empty")
    if not key.strip().isprintable():
        raise ConfigError(f"model {upstream.name}: the API key in {where} is not one line of text")
    return key.strip()


async def _relay(
    stack: contextlib.AsyncExitStack,
    answer: aiohttp.ClientResponse,
    upstream: Upstream,
    *,
    is_stream: bool,
) -> AsyncIterator[bytes]:
    async with stack:
        try:
            async for chunk in answer.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the upstream broke off", model=upstream.name, reason=repr(error))
            if not is_stream:
                raise  # the length no longer fits, so the client sees a broken answer
            detail = _no_answer(upstream, error).body()
            yield b"\n\ndata: " + json.dumps(detail).encode() + b"\n\n"


async def _refuse(answer: aiohttp.ClientResponse, upstream: Upstream) -> NoReturn:
    """Make an error that is not OpenAI's (a gateway's page, as a rule) one."""
    text = ""
    if answer.headers.get("content-encoding", "identity") == "identity":
        text = " ".join((await answer.text(errors="replace")).split())[:300]
    raise OpenAIError(
        f"the upstream of model '{upstream.name}' answered {answer.status}: "
        f"{text or answer.reason or 'with a page that is no text'}",
        status=answer.status,
        code="upstream_error",
    )


def _check_place(answer: aiohttp.ClientResponse, upstream: Upstream) -> None:
    if answer.method == "POST":
        return
    # A redirect by 301 to 303 made a GET of it, as browsers have it.
    to = answer.url.with_query(None).with_user(None)
    raise OpenAIError(
        f"the upstream of model '{upstream.name}' has moved to {to}: set api_base to where it is",
        status=502,
        code="upstream_moved",
    )


def _no_answer(upstream: Upstream, error: Exception) -> OpenAIError:
    silent = isinstance(error, TimeoutError)
    what = "did not answer in time" if silent else f"cannot be reached: {error}"
    return OpenAIError(
        f"the upstream of model '{upstream.name}' {what}",
        status=504 if silent else 502,
        code="upstream_timeout" if silent else "upstream_unreachable",
    )
