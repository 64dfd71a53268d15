"""Providers that do not speak OpenAI's API, through LiteLLM.

Guarantees: LiteLLM is imported only if a model of the configuration names a provider, in a
thread, before the gateway is ready; without it installed, the gateway does not start and says
why in one line. Answers and errors have OpenAI's form and the name the client asked for.

A client's body reaches LiteLLM by OpenAI's own fields alone: as arguments of LiteLLM, others
would say where the request goes and what the key is (`base_url` did).

Does not: let LiteLLM fetch its price list from the network (it does so on import, with
retries, unless told), or use LiteLLM's own proxy or caches; its router and retries only when the
configuration is LiteLLM's own.

LiteLLM takes 150 MB, two to nine seconds to import and ten times the CPU of a direct call: so
it is not used for upstreams that speak OpenAI's API.
"""

import asyncio
import importlib
import importlib.util
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from kaos import discovery
from kaos.modelapi.config import ROUTER, GatewayConfig, Target, Upstream
from kaos.modelapi.direct import api_key
from kaos.modelapi.errors import OpenAIError
from kaos.modelapi.http import ClientGoneError, unless_gone
from kaos.modelapi.litellm_config import RouterPlan

_FIELDS = frozenset(
    {
        *("messages", "input", "stream", "stream_options", "tools", "tool_choice", "n", "stop"),
        *("parallel_tool_calls", "response_format", "max_tokens", "max_completion_tokens"),
        *("temperature", "top_p", "seed", "user", "reasoning_effort", "verbosity", "logprobs"),
        *("top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty", "prediction"),
        *("modalities", "audio", "service_tier", "dimensions", "encoding_format"),
        *("safety_identifier", "prompt_cache_key", "web_search_options"),
    }
)
_CALLS = {"chat/completions": "acompletion", "embeddings": "aembedding"}


class BackendError(Exception):
    """A provider needs LiteLLM, and it is not there."""


def check(config: GatewayConfig) -> bool:
    """Whether LiteLLM is needed.

    Raises:
        BackendError: It is needed and not installed.
    """
    needing = [entry for entry in config.models if entry.provider]
    if needing and needing[0].provider == ROUTER:
        why = "the configuration is LiteLLM's (model_list), which needs LiteLLM"
    elif needing:
        why = (
            f"model {needing[0].name!r} needs provider {needing[0].provider!r}, which needs LiteLLM"
        )
    if needing and importlib.util.find_spec("litellm") is None:
        raise BackendError(
            f"{why}: install 'kaos[modelapi]', or use an image that has it; an "
            "OpenAI-compatible upstream needs only api_base and no provider"
        )
    return bool(needing)


def imported() -> Any:
    """LiteLLM itself.

    Raises:
        BackendError: It cannot be imported.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        return importlib.import_module("litellm")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise BackendError(f"LiteLLM cannot be loaded: {reason}") from error


class LiteLLM:
    """The providers behind LiteLLM."""

    def __init__(self, module: Any, env: Mapping[str, str], plan: RouterPlan | None) -> None:
        self._litellm = module
        self._env = env
        self._router = module.Router(**plan.router) if plan else None

    @classmethod
    async def load(cls, env: Mapping[str, str], plan: RouterPlan | None) -> "LiteLLM":
        """Import LiteLLM.

        Args:
            env: Where the API keys are.
            plan: What its own configuration file says, if there is one.
        """
        module = await asyncio.to_thread(imported)
        module.drop_params = True  # a parameter the provider lacks is no error
        module.suppress_debug_info = True
        for name in ("LiteLLM", "LiteLLM Router"):  # each request three times, beside our own line
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.setLevel(logging.WARNING)
        for name, value in (plan.library if plan else {}).items():
            setattr(module, name, value)
        return cls(module, env, plan)

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
        arguments = {name: value for name, value in body.items() if name in _FIELDS}
        asked: Any = self._router
        if asked is not None:
            arguments["model"] = target.model
        else:
            asked = self._litellm
            arguments |= {
                "model": f"{upstream.provider}/{target.model}",
                "api_base": _located(upstream),
                "api_key": api_key(upstream, self._env),
                "timeout": upstream.timeout,
                "num_retries": 0,
            }
        try:
            answer = await unless_gone(request, getattr(asked, _CALLS[path])(**arguments))
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


def _located(upstream: Upstream) -> str | None:
    """Where the upstream is; on the embedded cluster no DNS knows its Services."""
    try:
        return upstream.api_base and discovery.locate(upstream.api_base)
    except discovery.ServiceNotFound as error:
        raise _openai_error(error, upstream.name) from error


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
