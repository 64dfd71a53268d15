"""Who may ask: the bearer of the token, or anybody when there is none.

Guarantees a comparison in constant time and that health is told to everybody.
There are no users, roles or namespaced rights: whoever has the token may do
everything, and the reviews say so.
"""

import hmac
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.local.apiserver.errors import StatusError
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.store import encode

_OPEN = frozenset({"/healthz", "/readyz", "/livez"})
USER: dict[str, Any] = {
    "username": "kaos-admin",
    "groups": ["system:masters", "system:authenticated"],
}


class BearerAuth:
    """ASGI middleware that lets nobody in without the token.

    Args:
        app: What it guards.
        token: The token; empty lets everybody in.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401."""
        if scope["type"] in {"http", "websocket"} and not self._allowed(scope):
            body = encode(StatusError(401, "Unauthorized", "Unauthorized").to_dict())
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            headers = {"www-authenticate": "Bearer"}
            response = Response(body, 401, headers, media_type="application/json")
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        if not self._expected or scope["path"].rstrip("/") in _OPEN:
            return True
        given = Headers(scope=scope).get("authorization", "").encode()
        return hmac.compare_digest(given, self._expected)


def review(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """Answer one of the self reviews: everything is allowed to the bearer of the token."""
    metadata = {"creationTimestamp": None}
    body = {"kind": kind.kind, "apiVersion": kind.api_version, **body}
    match kind.kind:
        case "SelfSubjectReview":
            return {**body, "metadata": metadata, "status": {"userInfo": USER}}
        case "SelfSubjectRulesReview":
            status = {
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                "incomplete": False,
            }
            return {**body, "metadata": metadata, "status": status}
        case _:
            reason = "the embedded cluster knows one user, who may do everything"
            status = {"allowed": True, "reason": reason}
            return {**body, "metadata": metadata, "status": status}
