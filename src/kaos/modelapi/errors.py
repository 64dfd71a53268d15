"""Errors in OpenAI's form, for every server of ours that speaks its API.

The official clients read `message`, `type`, `param` and `code`, and retry 408, 409, 429 and
5xx by themselves.
"""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

INVALID, SERVER = "invalid_request_error", "server_error"


class OpenAIError(Exception):
    """A request that gets an error for an answer.

    Attributes:
        status: The HTTP status.
        kind: OpenAI's error type.
        code: OpenAI's error code, if there is one.
        param: The place in the request, if there is one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        # What it quotes may be half of a surrogate pair, which JSON can name and UTF-8 cannot.
        super().__init__(message.encode(errors="replace").decode())
        self.status = status
        self.kind = kind or (SERVER if status >= 500 else INVALID)
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        """The error object."""
        detail = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": detail}


async def respond(_: Request, error: Exception) -> Response:
    """Starlette's handler for `OpenAIError`, and for its own `HTTPException` (no such path)."""
    if isinstance(error, HTTPException):
        return plain(error.status_code, error.detail)
    assert isinstance(error, OpenAIError)  # noqa: S101 - registered for nothing else
    return JSONResponse(error.body(), status_code=error.status)


def plain(status: int, message: str) -> Response:
    """The error response of a layer that has only a status and a message."""
    return JSONResponse(OpenAIError(message, status=status).body(), status_code=status)


def model_not_found(model: str, way_out: str) -> OpenAIError:
    """The error for a model that is not served."""
    return OpenAIError(
        f"model '{model}' not found, {way_out}",
        status=404,
        kind="not_found_error",
        code="model_not_found",
        param="model",
    )
