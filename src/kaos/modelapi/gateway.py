"""The gateway of a Proxy ModelAPI: other people's models under one OpenAI-compatible address.

`POST /v1/chat/completions` (streamed or not), `POST /v1/completions`, `POST /v1/responses` and
`POST /v1/embeddings` go to the upstream that the configuration names for the model (`config`);
`GET /v1/models` lists the models with a name of their own (patterns are not guessed at), and
`GET /v1/models/{model}` answers for all. `/healthz`, `/readyz`, `/metrics`.

Guarantees: keys are looked for before the port is opened, and never logged; metrics are by the
configuration's names, so clients cannot make new series. Ready does not depend on upstreams: one
that is down must not take the others' gateway out of its Service.

Does not: check who asks, limit rates, count money, or fall back to another model.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from kaos.modelapi import litellm_backend, litellm_config
from kaos.modelapi.config import ConfigError, GatewayConfig, Target
from kaos.modelapi.direct import Direct, api_key, session
from kaos.modelapi.errors import OpenAIError, model_not_found, plain, respond
from kaos.modelapi.http import ClientGoneError, json_object
from kaos.telemetry import metrics
from kaos.telemetry.http import Observed
from kaos.telemetry.traced import traced

_PATHS = ("chat/completions", "completions", "responses", "embeddings")

_requests = metrics.counter(
    "kaos_modelapi_requests",
    "Requests to models, by the configuration's name of the model.",
    ("model", "status"),
)
_first_byte = metrics.histogram(
    "kaos_modelapi_upstream_first_byte_seconds",
    "Time until an upstream began to answer.",
    ("model",),
)


class Backend(Protocol):
    """Something that can ask upstreams."""

    async def ask(
        self, request: Request, path: str, body: dict[str, Any], target: Target
    ) -> Response:
        """Pass a request on to a target."""
        ...


class _Gateway:
    def __init__(self, config: GatewayConfig, env: Mapping[str, str]) -> None:
        self._config = config
        self._env = env
        self._needs_litellm = litellm_backend.check(config)
        for entry in config.models:
            api_key(entry, env)
        try:
            self._plan = litellm_config.plan(config.litellm, env) if config.litellm else None
        except litellm_config.SettingError as error:
            raise ConfigError(str(error)) from error
        self._direct: Backend
        self._litellm: Backend

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with session() as http:
            self._direct = Direct(http, self._env)
            if self._needs_litellm:
                self._litellm = await litellm_backend.LiteLLM.load(self._env, self._plan)
            yield

    async def ask(self, request: Request) -> Response:
        path = request.path_params["path"]
        if path not in _PATHS:
            raise OpenAIError(f"/v1/{path} is not served here", status=404)
        body = await json_object(request)
        requested = body.get("model")
        if not isinstance(requested, str) or not requested:
            raise OpenAIError("you must provide a model parameter", param="model")
        target = self._target(requested)
        name = target.upstream.name
        backend = self._litellm if target.upstream.provider else self._direct
        began, status = time.perf_counter(), 499
        try:
            response = await backend.ask(request, path, body, target)
            status = response.status_code
            _first_byte.labels(name).observe(time.perf_counter() - began)
            return response
        except ClientGoneError:
            return Response(status_code=499)
        except OpenAIError as error:
            status = error.status
            raise
        except ConfigError as error:  # a key's file that went away
            status = 500
            raise OpenAIError(str(error), status=500) from error
        finally:
            _requests.labels(name, str(status)).inc()

    async def models(self, _: Request) -> Response:
        names = [entry.name for entry in self._config.models if "*" not in entry.name]
        return JSONResponse({"object": "list", "data": [_model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["model"]
        self._target(name)
        return JSONResponse(_model(name))

    def _target(self, requested: str) -> Target:
        target = self._config.target(requested)
        if target is None:
            known = ", ".join(entry.name for entry in self._config.models)
            raise model_not_found(requested, f"this ModelAPI serves: {known}")
        return target


def build_app(config: GatewayConfig, env: Mapping[str, str]) -> ASGIApp:
    """The gateway as an ASGI app.

    Args:
        config: From `kaos.modelapi.config.load`.
        env: Where the API keys are.

    Raises:
        ConfigError: A key is missing.
        BackendError: A model needs LiteLLM, which is not installed.
    """
    gateway = _Gateway(config, env)
    app = Starlette(
        routes=[
            Route("/healthz", _ok),
            Route("/readyz", _ok),
            Route("/metrics", metrics.page),
            Route("/v1/models", gateway.models),
            Route("/v1/models/{model:path}", gateway.model),
            Route("/v1/{path:path}", gateway.ask, methods=["POST"]),
        ],
        lifespan=gateway.lifespan,
        exception_handlers={OpenAIError: respond, HTTPException: respond},
    )
    return Observed(traced(app, "modelapi"), on_error=plain)


async def _ok(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "kaos"}
