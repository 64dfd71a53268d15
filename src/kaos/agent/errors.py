"""What can go wrong in an agent, as HTTP and the OpenAI API say it.

Guarantees: every failure has a status that is true (never a 200 with an apology in it), a
message for people, a `code` for programs, and says whether trying again may help: OpenAI's
clients retry 408, 409, 429 and 5xx by themselves, so `x-should-retry: false` goes out with
everything that failed after a tool or a peer was called.
"""

# ruff: noqa: N818 - named by what happened, as Kubernetes and HTTP do

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class AgentError(Exception):
    """A failure the caller is told about."""

    status = 500
    type = "server_error"
    code: str | None = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status or self.status
        self.code = code or self.code
        self.param = param
        self.retry_after = retry_after
        self.acted = False

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        return error_object(self.message, type=self.type, code=self.code, param=self.param)

    def headers(self) -> dict[str, str]:
        """Return what clients go by when they decide on a retry."""
        headers = {}
        if self.retry_after is not None and not self.acted:
            headers["retry-after"] = f"{self.retry_after:.0f}"
        if self.acted or self.status < 500:
            headers["x-should-retry"] = "true" if self.status == 429 and not self.acted else "false"
        return headers


class BadRequest(AgentError):
    """The request cannot be served as it is."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class ModelUnavailable(AgentError):
    """The model's API cannot be reached, or says it is not ready."""

    status = 503
    code = "model_unavailable"


class ModelFailed(AgentError):
    """The model's API answered, but not with an answer."""

    status = 502
    code = "model_failed"
    passing = True
    """Whether the same question may be answered the next time."""


class ModelTimeout(AgentError):
    """The model's API did not answer in time."""

    status = 504
    code = "model_timeout"


class RateLimited(AgentError):
    """The model's API wants fewer requests."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class DeadlineExceeded(AgentError):
    """The request as a whole took longer than it may."""

    status = 504
    code = "deadline_exceeded"


class DelegationRefused(AgentError):
    """The request has been through this agent already, or through too many."""

    status = 400
    type = "invalid_request_error"
    code = "delegation_refused"


def error_object(
    message: str,
    *,
    type: str,  # noqa: A002 - the API's word
    code: str | None = None,
    param: str | None = None,
) -> dict[str, Any]:
    """Make OpenAI's error object."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def error_response(error: AgentError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the response for a failure."""
    return JSONResponse(
        error.body(), status_code=error.status, headers={**(headers or {}), **error.headers()}
    )


def reason(error: BaseException) -> str:
    """Say why something could not be reached, without a client library's decoration."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def plain_error_response(status: int, message: str) -> JSONResponse:
    """Make the response for a failure outside the agent's own code (routing, limits, bugs)."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse(error_object(message, type=kind), status_code=status)
