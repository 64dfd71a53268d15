"""GET /v1/models: the agent is the one model it offers.

Open WebUI and others check a connection by this list before they send anything.
"""

import time
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kaos.agent.errors import BadRequest, error_response
from kaos.agent.openai import Json


@dataclass(frozen=True, slots=True)
class ModelsEndpoint:
    """The list and its one entry."""

    name: str
    created: int = field(default_factory=lambda: int(time.time()))

    async def list(self, _request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def one(self, request: Request) -> Response:
        """GET /v1/models/{id}."""
        wanted = request.path_params["id"]
        if wanted != self.name:
            message = f"there is no model {wanted!r} here, only {self.name!r}"
            return error_response(
                BadRequest(message, status=404, code="model_not_found", param="model")
            )
        return JSONResponse(self._model())

    def _model(self) -> Json:
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "kaos"}
