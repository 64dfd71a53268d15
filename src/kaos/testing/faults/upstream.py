"""The API server behind the proxy: asked as a client would ask it, with the upstream's credentials.

Guarantees: headers that belong to one connection are not passed on, and neither is the client's
token; a refused token is renewed once; an answer begins within a minute.
"""

import asyncio
from typing import Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from kaos.runtime import ClusterConfig

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "content-length",
    "host",
    "authorization",
}
# aiohttp adds these: a client that asked for no compression got some.
_NOT_ASKED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_ONE_ANSWER = 60.0


class Upstream:
    """See the module; an async context manager."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._session.close()

    async def ask(self, request: web.BaseRequest, body: bytes) -> aiohttp.ClientResponse:
        """Pass a request on; the answer's body is still to come."""
        credentials = self._config.credentials
        login = await credentials.current()
        response = await self._send(request, body, login.token)
        if response.status == 401 and await credentials.refresh(login):
            response.close()
            response = await self._send(request, body, await credentials.token())
        return response

    async def _send(
        self, request: web.BaseRequest, body: bytes, token: str
    ) -> aiohttp.ClientResponse:
        headers = passed_on(request.headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        config = self._config
        url = URL(config.server + request.rel_url.raw_path_qs, encoded=True)
        async with asyncio.timeout(_ONE_ANSWER):
            return await self._session.request(
                request.method,
                url,
                data=body or None,
                headers=headers,
                skip_auto_headers=_NOT_ASKED,
                ssl=config.credentials.tls or True,
                server_hostname=config.tls_server_name or None,
                proxy=config.proxy or None,
                allow_redirects=False,
            )


def passed_on(headers: "CIMultiDictProxy[str]") -> "CIMultiDict[str]":
    """The headers that may be passed on."""
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept
