"""The HTTP surface of the stand-in: Ollama's `/api/…` for models, OpenAI's `/v1/…` for talk.

Guarantees: errors have the form of the API they belong to (`{"error": "text"}` under `/api`,
OpenAI's object under `/v1`); a pull reports progress as Ollama does, and its failure as a line
with `error`; a model is loaded right after its pull, so the first answer is fast. A client
that goes away ends what was done for it, downloads included.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from kaos import __version__
from kaos.local.ollama.catalogue import CATALOGUE, Model, UnknownModelError, Weights, resolve
from kaos.local.ollama.chat import Chat
from kaos.local.ollama.download import DownloadError, Progress, fetch
from kaos.local.ollama.engine import Engine, EngineError, EngineSettings
from kaos.local.ollama.store import Pulled, Store
from kaos.modelapi.errors import OpenAIError, model_not_found, plain, respond
from kaos.modelapi.http import ClientGoneError, json_object, unless_gone
from kaos.modelapi.names import full_name
from kaos.telemetry.http import Observed

log = structlog.get_logger(__name__)

Fetch = Callable[[Weights, Store, Progress], Awaitable[None]]


class Ollama:
    """The models of one store, and the processes they run in."""

    def __init__(
        self,
        store: Store,
        *,
        overrides: Mapping[str, str],
        settings: EngineSettings,
        catalogue: tuple[Model, ...] = CATALOGUE,
        download: Fetch = fetch,
    ) -> None:
        self.store = store
        self._overrides = overrides
        self._settings = settings
        self._catalogue = catalogue
        self._download = download
        self._engines: dict[str, Engine] = {}

    def app(self) -> ASGIApp:
        """The ASGI app."""

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            try:
                yield
            finally:
                for engine in self._engines.values():
                    await engine.close()

        routes = [
            Route("/", _running, methods=["GET", "HEAD"]),
            Route("/healthz", _running),
            Route("/readyz", _running),
            Route("/api/version", _version),
            Route("/api/tags", self._tags),
            Route("/api/show", self._show, methods=["POST"]),
            Route("/api/pull", self._pull, methods=["POST"]),
            Route("/api/copy", self._copy, methods=["POST"]),
            Route("/api/delete", self._delete, methods=["DELETE"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{model:path}", self._model),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
        ]
        errors: dict[Any, Any] = {
            OpenAIError: _refuse,
            HTTPException: _no_such_path,
            EngineError: _engine_error,
        }
        inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)
        observed = Observed(inner, on_error=plain)

        async def front(scope: Scope, receive: Receive, send: Send) -> None:
            # Ollama's probes ask for `/`: a line in the log for each would bury the others.
            quiet = scope["type"] == "http" and scope["path"] == "/"
            await (inner if quiet else observed)(scope, receive, send)

        return front

    # Ollama's own API

    async def _tags(self, _: Request) -> Response:
        found = await asyncio.to_thread(self.store.list)
        return JSONResponse({"models": [_describe(pulled, model) for pulled, model in found]})

    async def _show(self, request: Request) -> Response:
        name = _name(await json_object(request))
        model = await asyncio.to_thread(self.store.get, name)
        if model is None:
            return _api_error(404, f"model '{name}' not found")
        return JSONResponse(
            {
                "license": model.license,
                "details": dict(model.details),
                "capabilities": ["completion", "tools"],
                "model_info": {"general.architecture": "llama", "general.file_type": 3},
            }
        )

    async def _pull(self, request: Request) -> Response:
        body = await json_object(request)
        name = _name(body)
        if body.get("stream") is not False:
            return StreamingResponse(self._pull_lines(name), media_type="application/x-ndjson")
        last = [event async for event in self._pull_events(name)][-1]
        return JSONResponse(last, status_code=500 if "error" in last else 200)

    async def _pull_lines(self, name: str) -> AsyncIterator[bytes]:
        async with contextlib.aclosing(self._pull_events(name)) as events:
            async for event in events:
                yield json.dumps(event).encode() + b"\n"

    async def _pull_events(self, name: str) -> AsyncGenerator[dict[str, Any], None]:
        yield {"status": "pulling manifest"}
        try:
            model = resolve(name, self._overrides, self._catalogue)
        except UnknownModelError as error:
            yield {"error": f"pull model manifest: {error}"}
            return
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        digest = f"sha256:{model.weights.sha256}"

        def progress(status: str, completed: int, total: int) -> None:
            numbers = {"digest": digest, "total": total, "completed": completed} if total else {}
            events.put_nowait({"status": status, **numbers})

        async def work() -> None:
            try:
                await self._download(model.weights, self.store, progress)
            finally:
                events.put_nowait(None)

        task = asyncio.create_task(work())
        try:
            said = None
            while (event := await events.get()) is not None:
                if event != said:
                    yield event
                said = event
            await task
            await asyncio.to_thread(self.store.add, name, model)
            await self._engine(model).load()
        except (DownloadError, EngineError) as error:
            log.warning("pull failed", model=name, reason=str(error))
            yield {"error": f"model '{full_name(name)}': {error}"}
            return
        finally:
            task.cancel()
            await asyncio.wait([task])
        log.info("pulled", model=full_name(name), served_by=model.name)
        yield {"status": "success"}

    async def _copy(self, request: Request) -> Response:
        body = await json_object(request)
        source, destination = body.get("source"), body.get("destination")
        if not isinstance(source, str) or not isinstance(destination, str):
            return _api_error(400, "source and destination are required")
        model = await asyncio.to_thread(self.store.get, source)
        if model is None:
            return _api_error(404, f"model '{source}' not found")
        await asyncio.to_thread(self.store.add, destination, model)
        return Response()

    async def _delete(self, request: Request) -> Response:
        name = _name(await json_object(request))
        if not await asyncio.to_thread(self.store.remove, name):
            return _api_error(404, f"model '{name}' not found")
        return Response()

    # OpenAI's API

    async def _models(self, _: Request) -> Response:
        found = await asyncio.to_thread(self.store.list)
        return JSONResponse({"object": "list", "data": [_openai_model(p.name) for p, _ in found]})

    async def _model(self, request: Request) -> Response:
        await self._pulled(request.path_params["model"])
        return JSONResponse(_openai_model(request.path_params["model"]))

    async def _chat(self, request: Request) -> Response:
        body = await json_object(request)
        name = body.get("model")
        if not isinstance(name, str) or not name:
            raise OpenAIError("you must provide a model parameter", param="model")
        chat = Chat(self._engine(await self._pulled(name)), body)
        try:
            if not chat.streamed:
                return JSONResponse(await unless_gone(request, chat.whole()))
            # The first chunk decides between an HTTP error and a stream.
            chunks = chat.chunks()
            first = await unless_gone(request, anext(chunks))
        except ClientGoneError:
            return Response(status_code=499)
        return StreamingResponse(
            _sse(first, chunks),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def _pulled(self, name: str) -> Model:
        model = await asyncio.to_thread(self.store.get, name)
        if model is None:
            raise model_not_found(name, "pull it first")
        return model

    def _engine(self, model: Model) -> Engine:
        digest = model.weights.sha256
        if digest not in self._engines:
            self._engines[digest] = Engine(model.weights, self.store, self._settings)
        return self._engines[digest]


async def _sse(
    first: dict[str, Any], chunks: AsyncGenerator[dict[str, Any], None]
) -> AsyncIterator[bytes]:
    try:
        async with contextlib.aclosing(chunks):
            yield _event(first)
            async for chunk in chunks:
                yield _event(chunk)
    except OpenAIError as error:
        yield _event(error.body())
        return
    yield b"data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def _running(_: Request) -> Response:
    return PlainTextResponse("Ollama is running")


async def _version(_: Request) -> Response:
    return JSONResponse({"version": f"0.0.0-kaos.{__version__}"})


def _name(body: Mapping[str, Any]) -> str:
    name = body.get("model") or body.get("name")
    if not isinstance(name, str) or not name.strip():
        raise OpenAIError("model is required", param="model")
    return name


def _describe(pulled: Pulled, model: Model) -> dict[str, Any]:
    return {
        "name": pulled.name,
        "model": pulled.name,
        "modified_at": pulled.modified_at,
        "size": model.weights.size,
        "digest": model.weights.sha256,
        "details": dict(model.details),
    }


def _openai_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "library"}


async def _refuse(request: Request, error: OpenAIError) -> Response:
    if request.scope["path"].startswith("/api/"):
        return _api_error(error.status, str(error))
    return await respond(request, error)


async def _no_such_path(request: Request, error: HTTPException) -> Response:
    reason = "; this stand-in for ollama has no such call" if error.status_code == 404 else ""
    message = f"{request.method} {request.scope['path']}: {error.detail}{reason}"
    return await _refuse(request, OpenAIError(message, status=error.status_code))


async def _engine_error(request: Request, error: EngineError) -> Response:
    return await _refuse(request, OpenAIError(str(error), status=503))


def _api_error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
