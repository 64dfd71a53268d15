"""TLS as kubeconfigs ask for it, against a server that has it: what is trusted, and who we are."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kaos.local import certificate
from kaos.local.apiserver import APIServer
from kaos.runtime import NAMESPACE, Client, ClusterConfig, Unreachable
from kaos.runtime.transport import HttpRequest
from tests.unit.runtime.test_config import certificate as certificate_of_a_user

TOKEN = "t"


class Secure:
    """An API server with TLS, for "localhost" and 127.0.0.1."""

    def __init__(self, url: str, folder: Path, ca: Path) -> None:
        self.ca, self.url, self._folder = ca, url, folder

    async def load(
        self, cluster: dict[str, Any], user: dict[str, str] | None = None
    ) -> ClusterConfig:
        """What a kubeconfig with these settings of the cluster leads to."""
        body = {
            "clusters": [{"name": "c", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "u", "user": user or {"token": TOKEN}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = self._folder / "kubeconfig"
        path.write_text(json.dumps(body))
        return await ClusterConfig.load(path)

    def data(self, ca: Path | None = None) -> str:
        return base64.b64encode((ca or self.ca).read_bytes()).decode()


@pytest.fixture
async def secure(tmp_path: Path) -> AsyncIterator[Secure]:
    ca, key = tmp_path / "ca.crt", tmp_path / "key"
    certificate.create(ca, key)
    async with APIServer(token=TOKEN).serve(tls=(ca, key)) as url:
        yield Secure(url, tmp_path, ca)


async def ask(config: ClusterConfig) -> int:
    """The status of one request, without the retries that a `Client` adds."""
    async with Client.connect(config) as client:
        return (await client.transport.request(HttpRequest("GET", NAMESPACE.path()))).status


async def test_the_authority_of_the_kubeconfig_is_trusted(secure: Secure) -> None:
    inline = {"certificate-authority-data": secure.data()}
    assert await ask(await secure.load(inline)) == 200
    assert await ask(await secure.load({"certificate-authority": str(secure.ca)})) == 200
    by_name = {**inline, "server": secure.url.replace("127.0.0.1", "localhost")}
    assert await ask(await secure.load(by_name)) == 200


async def test_no_other_server_is_trusted(secure: Secure, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    certificate.create(other, tmp_path / "other.key")
    for settings in ({"certificate-authority-data": secure.data(other)}, {}):
        with pytest.raises(Unreachable, match=r"(?i)certificate.verify.failed"):
            await ask(await secure.load(settings))


async def test_the_name_in_the_certificate_is_the_one_asked_for(secure: Secure) -> None:
    settings = {"certificate-authority-data": secure.data(), "tls-server-name": "elsewhere.test"}
    with pytest.raises(Unreachable, match=r"elsewhere\.test"):
        await ask(await secure.load(settings))
    settings["tls-server-name"] = "localhost"
    assert await ask(await secure.load(settings)) == 200


async def test_verification_is_off_only_where_the_kubeconfig_says_so(secure: Secure) -> None:
    config = await secure.load({"insecure-skip-tls-verify": True})
    assert config.credentials.tls is not None
    assert config.credentials.tls.verify_mode is ssl.CERT_NONE
    assert await ask(config) == 200


async def test_the_client_certificate_of_the_kubeconfig_is_shown(
    secure: Secure, tmp_path: Path
) -> None:
    cert, key = tmp_path / "client.crt", tmp_path / "client.key"
    public, private = certificate_of_a_user()
    cert.write_bytes(public)
    key.write_bytes(private)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(cert))
    tls.load_cert_chain(secure.ca, tmp_path / "key")
    tls.verify_mode = ssl.CERT_REQUIRED
    shown: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        shown.append(writer.get_extra_info("peercert")["subject"])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        there = {"server": f"https://127.0.0.1:{port}"}
        config = await secure.load(
            {**there, "certificate-authority-data": secure.data()},
            {"client-certificate": str(cert), "client-key": str(key)},
        )
        assert await ask(config) == 200
    assert shown == [((("commonName", "test"),),)]


async def test_a_renewed_client_certificate_is_shown_instead_of_the_refused_one(
    secure: Secure, tmp_path: Path
) -> None:
    """The connection that showed the old one was used again, and refused for as long as it was."""
    trusted, cert, key = (tmp_path / name for name in ("both.crt", "client.crt", "client.key"))
    pairs = certificate_of_a_user("old"), certificate_of_a_user("new")
    trusted.write_bytes(b"".join(public for public, _ in pairs))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted))
    tls.load_cert_chain(secure.ca, tmp_path / "key")
    tls.verify_mode = ssl.CERT_REQUIRED
    expired = False

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = writer.get_extra_info("peercert")["subject"][0][0][1]
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                status = b"401 No" if expired and name == "old" else b"200 OK"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        there = {"server": f"https://127.0.0.1:{port}"}
        for path, pem in zip((cert, key), pairs[0], strict=True):
            path.write_bytes(pem)
        config = await secure.load(
            {**there, "certificate-authority-data": secure.data()},
            {"client-certificate": str(cert), "client-key": str(key)},
        )
        async with Client.connect(config) as client:
            asked = HttpRequest("GET", "/")
            assert (await client.transport.request(asked)).status == 200
            expired = True
            assert (await client.transport.request(asked)).status == 401
            for path, pem in zip((cert, key), pairs[1], strict=True):
                path.write_bytes(pem)
            assert (await client.transport.request(asked)).status == 200
