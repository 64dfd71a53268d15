"""Ask an agent through the gateway, as any OpenAI client would.

Guaranteed: the answer's text comes as the agent sends it; whatever goes wrong (no gateway, an error
status, an error in the middle of the stream, silence) is a `CliError` in the server's words.

An agent with `auth` asks for a token, which comes from `KAOS_TOKEN`: a command line can be read by
everybody on the machine.
"""

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from kaos.cli.errors import CliError
from kaos.cli.resources import key_of, unreachable

_SILENCE = 300.0  # a small model on a busy laptop thinks for minutes; a dead one says so itself
_MAX_ERROR = 4096
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # not \t and \n
TOKEN_VARIABLE = "KAOS_TOKEN"  # noqa: S105 - the variable's name

Message = dict[str, str]


def agent_url(gateway: str, namespace: str, name: str) -> str:
    """Where an agent is always served, whoever else is called the same."""
    return f"{gateway}/{namespace}/agent/{name}"


def require_reachable(body: Mapping[str, Any] | None) -> None:
    """Refuse to ask an agent that the gateway leads nobody to: a 404 or 503 would not say why.

    Raises:
        CliError: it is not exposed, or suspended.
    """
    if body is not None and (why := unreachable(body)):
        raise CliError(f"{key_of(body)} is {why}")


def say(piece: str) -> None:
    """Print a piece of an answer: to a terminal without what would take it over, else as it is."""
    sys.stdout.write(_CONTROL.sub("", piece) if sys.stdout.isatty() else piece)
    sys.stdout.flush()


async def ask(base: str, model: str, messages: list[Message]) -> AsyncIterator[str]:
    """The answer to ``messages``, piece by piece.

    Args:
        base: The agent's URL, without ``/v1``.
        model: The name to put into the request.
        messages: The conversation so far, the question last.

    Raises:
        CliError: there is no answer, or it broke off.
    """
    url = f"{base}/v1/chat/completions"
    body = {"model": model, "messages": messages, "stream": True}
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_SILENCE)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.post(url, json=body, headers=_headers()) as response,
        ):
            if response.status == 401:
                raise CliError(f"{model} wants a token that it knows: set {TOKEN_VARIABLE}")
            if response.status != 200:
                text = await response.content.read(_MAX_ERROR)
                raise CliError(f"{model} answered {response.status}: {_words(text)}")
            async for piece in _pieces(response):
                yield piece
    except TimeoutError as error:
        raise CliError(f"{model} was silent for {_SILENCE:.0f} s ({url})") from error
    except aiohttp.ClientError as error:
        raise CliError(f"cannot talk to {model} at {url}: {error}") from error


def _headers() -> dict[str, str]:
    token = os.environ.get(TOKEN_VARIABLE, "")
    return {"authorization": f"Bearer {token}"} if token else {}


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The text in an event stream (or in one plain completion)."""
    if response.content_type == "application/json":
        yield _content(await response.json(), "message")
        return
    async for raw in response.content:
        line = raw.decode(errors="replace").strip()
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise CliError(f"the answer broke off: {_words(data.encode())}")
        if text := _content(event, "delta"):
            yield text
    raise CliError("the answer broke off: the stream ended without [DONE]")


def _content(event: Any, part: str) -> str:
    choices = event.get("choices") or [{}]
    return str((choices[0].get(part) or {}).get("content") or "")


def _words(body: bytes) -> str:
    """What an error body says: an OpenAI error object, or whatever text it is."""
    text = body.decode(errors="replace").strip()
    try:
        error = json.loads(text)["error"]
    except (ValueError, KeyError, TypeError):
        return text or "nothing"
    return str(error.get("message") if isinstance(error, dict) else error)
