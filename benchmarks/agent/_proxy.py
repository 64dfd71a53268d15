"""The least that a proxy of a model can be in Starlette, on the same server as an agent.

Run: `python _proxy.py PORT MODEL_URL`. Below `/static` it answers by itself, which is what the
server alone costs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from _model import ANSWER as _MODELS_ANSWER
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from kaos.telemetry import serving

MODEL = sys.argv[2]
ANSWER = _MODELS_ANSWER.partition(b"\r\n\r\n")[2]


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        app.state.http = http
        yield


async def chat(request: Request) -> Response:
    body = await request.json()
    upstream = await request.app.state.http.post(f"{MODEL}/v1/chat/completions", json=body)
    if upstream.content_type != "text/event-stream":
        return Response(await upstream.read(), media_type="application/json")
    return StreamingResponse(upstream.content.iter_any(), media_type="text/event-stream")


async def static(request: Request) -> Response:
    await request.body()
    return Response(ANSWER, media_type="application/json")


async def ok(_request: Request) -> Response:
    return Response(b"ok")


if __name__ == "__main__":
    routes = [
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route("/static/v1/chat/completions", static, methods=["POST"]),
        Route("/readyz", ok),
    ]
    app = Starlette(lifespan=lifespan, routes=routes)
    asyncio.run(serving.serve(app, listen=f"127.0.0.1:{sys.argv[1]}"))
