"""The guard: every request shows a token, but for the probes, the metrics and the card.

Guarantees: a request without a valid token reaches nothing behind the guard, and its body is
not read; the answer does not say which part of a token was wrong; a verifier that cannot be
asked is 503 and never a yes; tokens are in no log. The caller's identity is in every log line
below, and it is what sessions belong to.

Stays open: /healthz, /readyz and /metrics, which the kubelet and Prometheus ask without a
token, and the agent's card, by which others find out how to call it.
"""

from collections.abc import Sequence
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos.agent.auth.caller import set_caller
from kaos.agent.errors import AgentError, error_response

log = structlog.get_logger(__name__)

OPEN = frozenset({"/healthz", "/readyz", "/metrics", "/.well-known/agent-card.json"})
MAX_TOKEN = 16 * 1024


class Unauthorized(AgentError):  # noqa: N818 - as in kaos.agent.errors
    """No token, or none that is valid."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(AgentError):  # noqa: N818
    """A valid token of somebody who is not on the list."""

    status = 403
    type = "permission_error"
    code = "not_allowed"


class AuthUnavailable(AgentError):  # noqa: N818
    """Whoever could check the token cannot be asked."""

    status = 503
    code = "auth_unavailable"


class Verifier(Protocol):
    """One way to find out whose a token is."""

    async def identify(self, token: str) -> str | None:
        """Return whose token it is, or None if it is not known here.

        Raises:
            AgentError: It is known and not allowed, or nobody can tell now.
        """

    async def close(self) -> None:
        """Let go of connections."""


class Guard:
    """ASGI middleware; inside `Observed`, around everything else.

    Args:
        app: The app below.
        verifiers: Asked in order; without any, everybody may call.
    """

    def __init__(self, app: ASGIApp, verifiers: Sequence[Verifier]) -> None:
        self._app = app
        self._verifiers = verifiers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                for verifier in self._verifiers:
                    await verifier.close()
            return
        closed = scope["type"] in ("http", "websocket") and scope["path"] not in OPEN
        if not self._verifiers or not closed:
            await self._app(scope, receive, send)
            return
        try:
            identity = await self._identify(_bearer(scope))
        except AgentError as error:
            log.info("caller refused", status=error.status, reason=error.message)
            headers = {}
            if error.status == 401:
                shown = ', error="invalid_token"' if _bearer(scope) else ""
                headers["www-authenticate"] = f'Bearer realm="kaos"{shown}'
            await error_response(error, headers)(scope, receive, send)
            return
        set_caller(scope, identity)
        with structlog.contextvars.bound_contextvars(caller=identity):
            await self._app(scope, receive, send)

    async def _identify(self, token: str) -> str:
        if not token:
            raise Unauthorized("this agent asks for a token: Authorization: Bearer …")
        if len(token) <= MAX_TOKEN:
            for verifier in self._verifiers:
                identity = await verifier.identify(token)
                if identity is not None:
                    return identity
        raise Unauthorized("the token is not valid")


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = str(value, "latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
