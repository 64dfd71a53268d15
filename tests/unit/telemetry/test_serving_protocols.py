"""HTTP/2 and WebSockets are loaded when they are first spoken, and work then."""

import asyncio
import subprocess
import sys

import aiohttp
import h2.config
import h2.connection
import h2.events
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kaos.telemetry import serving


async def hello(request: Request) -> Response:
    return PlainTextResponse(f"HTTP/{request.scope['http_version']}")


async def test_a_client_with_prior_knowledge_is_served() -> None:
    async with serving.running(Starlette(routes=[Route("/", hello)])) as url:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        headers = {":method": "GET", ":path": "/", ":scheme": "http", ":authority": "a"}
        client.send_headers(1, list(headers.items()), end_stream=True)
        body = b""
        async with asyncio.timeout(5):
            while not body:
                writer.write(client.data_to_send())
                for event in client.receive_data(await reader.read(65536)):
                    if isinstance(event, h2.events.DataReceived):
                        body += event.data
        writer.close()
        await writer.wait_closed()
    assert body == b"HTTP/2"


async def test_a_websocket_that_nobody_wants_is_refused() -> None:
    async with serving.running(Starlette()) as url, aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url)
    assert refused.value.status == 403


@pytest.mark.process
def test_neither_is_loaded_before() -> None:
    code = "import sys, kaos.telemetry.serving; print({'hpack', 'wsproto'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
