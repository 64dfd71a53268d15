"""Providers that do not speak OpenAI's API, through LiteLLM.

Guarantees: LiteLLM is imported only if a model of the configuration names a provider, in a
thread, before the gateway is ready; without it installed, the gateway does not start and says
why in one line. Answers and errors have OpenAI's form and the name the client asked for.

Does not: let LiteLLM fetch its price list from the network (it does so on import, with
retries, unless told), or use LiteLLM's own proxy, router, retries or caches.

LiteLLM takes 150 MB, two to nine seconds to import and ten times the CPU of a direct call: so
it is not used for upstreams that speak OpenAI's API.
"""

import asyncio
import importlib
import importlib.util
import json
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from kaos.modelapi.config import GatewayConfig, Target
from kaos.modelapi.direct import api_key
from kaos.modelapi.errors import OpenAIError
from kaos.modelapi.http import ClientGoneError, unless_gone

_CALLS = {"chat/completions": "acompletion", "embeddings": "aembedding"}


class BackendError(Exception):
    """A provider needs LiteLLM, and it is not there."""


def check(config: GatewayConfig) -> bool:
    """Whether LiteLLM is needed.

    Raises:
        BackendError: It is needed and not installed.
    """
    needing = [entry for entry in config.models if entry.provider]
    if needing and importlib.util.find_spec("litellm") is None:
        raise BackendError(
            f"model {needing[0].name!r} needs provider {needing[0].provider!r}, which needs "
            "LiteLLM: install 'kaos[modelapi]', or use an image that has it; an "
            "OpenAI-compatible upstream needs only api_base and no provider"
        )
    return bool(needing)


class LiteLLM:
    """The providers behind LiteLLM."""

    def __init__(self, module: Any, env: Mapping[str, str]) -> None:
        self._litellm = module
        self._env = env

    @classmethod
    async def load(cls, env: Mapping[str, str]) -> "LiteLLM":
        """Import LiteLLM."""
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        module: Any = await asyncio.to_thread(importlib.import_module, "litellm")
        module.drop_params = True  # a parameter the provider lacks is no error
        module.suppress_debug_info = True
        return cls(module, env)

    async def ask(
        self, request: Request, path: str, body: dict[str, Any], target: Target
    ) -> Response:
        """Ask a provider.

        Raises:
            OpenAIError: It refuses, or gives no answer.
            ClientGoneError: Nobody waits for it.
        """
        if path not in _CALLS:
            raise OpenAIError(f"/v1/{path} is not served for this model", status=404)
        upstream = target.upstream
        arguments = {
            **body,
            "model": f"{upstream.provider}/{target.model}",
            "api_base": upstream.api_base,
            "api_key": api_key(upstream, self._env),
            "timeout": upstream.timeout,
            "num_retries": 0,
        }
        try:
            answer = await unless_gone(request, getattr(self._litellm, _CALLS[path])(**arguments))
        except ClientGoneError:
            raise
        except Exception as error:
            raise _openai_error(error, upstream.name) from error
        if body.get("stream") is True and path == "chat/completions":
            return StreamingResponse(
                _events(answer, str(body.get("model")), upstream.name),
                media_type="text/event-stream",
                headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
            )
        return JSONResponse({**answer.model_dump(), "model": body.get("model")})


async def _events(answer: Any, model: str, name: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer:
            data = {**chunk.model_dump(exclude_none=True), "model": model}
            yield b"data: " + json.dumps(data).encode() + b"\n\n"
    except Exception as error:  # noqa: BLE001 - a provider's library can raise anything
        detail = _openai_error(error, name).body()
        yield b"data: " + json.dumps(detail).encode() + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


def _openai_error(error: Exception, name: str) -> OpenAIError:
    status = getattr(error, "status_code", None)
    words = " ".join(str(error).split())[:500] or type(error).__name__
    return OpenAIError(
        f"the provider of model '{name}' refused: {words}",
        status=status if isinstance(status, int) and 400 <= status < 600 else 502,
        code="provider_error",
    )
