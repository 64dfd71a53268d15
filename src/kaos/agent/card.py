"""GET /.well-known/agent-card.json: who this agent is, as an A2A 1.0 card.

Guarantees: the address is one the reader can use (it is the one it used, unless
`KAOS_PUBLIC_URL` names another; a gateway that takes a prefix off the path says so in a header),
and only what works is claimed: A2A's own binding where its SDK is installed, and the OpenAI chat
API. An ETag lets peers ask again for nothing.

Whoever sends such a header himself gets a card that leads himself astray, and nobody else: the
answer varies by them, so that a cache keeps it apart.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from kaos import __version__
from kaos.agent.openai import Json
from kaos.agent.settings import Settings
from kaos.agent.tools import Tool

_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,300}")
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_MAX_PREFIX = 500
_PROTO = "x-forwarded-proto"
_FORWARDED = "x-forwarded-prefix"
_ENVOY_PATH = "x-envoy-original-path"
_VARY = f"{_PROTO}, {_FORWARDED}, {_ENVOY_PATH}"


@dataclass(frozen=True, slots=True)
class CardEndpoint:
    """The card."""

    settings: Settings
    tools: Callable[[], list[Tool]]
    a2a: bool = False

    async def get(self, request: Request) -> Response:
        """Return the card, or 304 to a reader who has it."""
        body = to_json(self._card(self._base(request)))
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"etag": etag, "cache-control": "max-age=30", "vary": _VARY}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    def _base(self, request: Request) -> str:
        if self.settings.public_url:
            return self.settings.public_url.rstrip("/")
        host = request.headers.get("host", "")
        if not _HOST.fullmatch(host):
            return ""
        proto = request.headers.get(_PROTO, "")
        return f"{'https' if proto == 'https' else 'http'}://{host}{_prefix(request)}"

    def _card(self, base: str) -> Json:
        about = self.settings.description or f"The agent {self.settings.name}"
        chat: Json = {"id": "chat", "name": "Chat", "description": about, "tags": ["chat"]}
        return {
            "name": self.settings.name,
            "description": about,
            "version": __version__,
            "supportedInterfaces": [
                *([_interface(f"{base}/a2a", "JSONRPC")] if self.a2a else []),
                _interface(f"{base}/v1", "OPENAI-CHAT-COMPLETIONS"),
            ],
            "capabilities": {"streaming": True, "pushNotifications": False},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [chat, *(_skill(tool) for tool in self.tools() if tool.kind == "tool")],
        }


def _prefix(request: Request) -> str:
    """What a gateway has taken off the path, if one says so; Envoy tells of the path it had."""
    prefix = request.headers.get(_FORWARDED, "").rstrip("/")
    if not prefix:
        original = request.headers.get(_ENVOY_PATH, "").partition("?")[0]
        prefix = original.removesuffix(request.scope["path"]) if original else ""
        if prefix == original:
            return ""
    return prefix if len(prefix) <= _MAX_PREFIX and _PREFIX.fullmatch(prefix) else ""


def _interface(url: str, binding: str) -> Json:
    return {"url": url, "protocolBinding": binding, "protocolVersion": "1.0"}


def _skill(tool: Tool) -> Json:
    return {
        "id": f"{tool.source}/{tool.name}",
        "name": tool.name,
        "description": tool.description or tool.name,
        "tags": [tool.kind],
    }
