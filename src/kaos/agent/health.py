"""GET /healthz and /readyz.

Guarantees: `/healthz` answers as soon as the port does and never waits for anybody, so a slow
import or a dead model gets no pod killed; `/readyz` is 200 only when the model's API answers
and every MCP server has answered once or has had its time to (`KAOS_DEPENDENCY_WAIT`); it
lists tools and peers with their state, and an agent that lacks some of them is `degraded`:
ready, and it says so. (An earlier agent was always ready.)

Does not: ask the model for an answer; that would cost tokens every few seconds.
"""

import asyncio
import time
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kaos.agent.mcp_pool import ToolPool
from kaos.agent.model import ModelClient
from kaos.agent.openai import Json
from kaos.agent.peers import PeerDirectory

PROBE_EVERY = 3.0
"""Seconds for which a look at the model's API holds, however often we are probed."""


async def healthz(_request: Request) -> Response:
    """GET /healthz."""
    return JSONResponse({"status": "ok"})


@dataclass(slots=True)
class ReadyEndpoint:
    """GET /readyz."""

    model: ModelClient
    model_url: str
    pool: ToolPool
    peers: PeerDirectory
    dependency_wait: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _error: str | None = None
    _looked: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, _request: Request) -> Response:
        """Tell whether requests can be served, and what is missing."""
        error = await self._model_error()
        report: Json = {
            "status": self._status(error),
            "model": {"url": self.model_url, "reachable": error is None, "error": error or ""},
            "tools": [
                {
                    "server": server.name,
                    "state": server.status.state,
                    "tools": len(server.tools),
                    "error": server.status.error,
                }
                for server in self.pool.servers
            ],
            "peers": [
                {"agent": peer.name, "state": peer.status.state, "error": peer.status.error}
                for peer in self.peers.peers
            ],
        }
        ready = report["status"] in ("ready", "degraded")
        return JSONResponse(report, status_code=200 if ready else 503)

    def _status(self, model_error: str | None) -> str:
        if model_error is not None:
            return "unavailable"
        waiting = time.monotonic() - self._started < self.dependency_wait
        if not (self.pool.answered or (self.pool.settled and not waiting)):
            return "starting"
        missing = any(server.status.state != "ready" for server in self.pool.servers) or any(
            peer.status.state == "down" for peer in self.peers.peers
        )
        return "degraded" if missing else "ready"

    async def _model_error(self) -> str | None:
        async with self._lock:
            if time.monotonic() - self._looked >= PROBE_EVERY:
                self._error = await self.model.reachable()
                # Only good news is kept: a model that comes up is noticed at once.
                self._looked = time.monotonic() if self._error is None else float("-inf")
            return self._error
