"""What an agent's process does without changes nothing that it does."""

import asyncio
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kaos.runtime.webhooks.certificates import make

_GET = """
import kaos.agent.lean, aiohttp, asyncio, sys

async def main(url):
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(url) as answer:
                print(answer.status)
        except aiohttp.ClientConnectorCertificateError:
            print("not trusted")

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.process
async def test_tls_roots_that_are_read_late_are_those_of_the_machine(tmp_path: Path) -> None:
    pair = make(["localhost"], datetime.now(UTC))
    roots, key = tmp_path / "roots.pem", tmp_path / "key.pem"
    roots.write_text(pair.certificate)
    key.write_text(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(roots, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async def get(url: str, **env: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _GET, url), env=env, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        return said.decode().strip()

    async with await asyncio.start_server(answer, "localhost", 0, ssl=context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        told, untold = await asyncio.gather(get(url, SSL_CERT_FILE=str(roots)), get(url))
    assert (told, untold) == ("204", "not trusted")
