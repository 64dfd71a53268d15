"""Peers: other agents, offered to the model as tools and called over the OpenAI API.

Guarantees: each peer is a tool from the start, with the description its own card gives as soon
as the card can be read (asked for in the background, so a peer that is down costs a request
nothing); its address is looked up at each call, so a peer that came or moved needs no restart
here; the messages are in standard roles; trace headers and the run's id go along.

Cycles: `x-kaos-path` lists the agents a request has been through, as `name.namespace`. An
agent that finds itself in it, or finds it too long, refuses the request; one that is about to
delegate to somebody in it tells the model instead. The header is a guard against accidents and
not a right: a caller may leave it out.

The peer answers in a stream, with its steps: they are events of this agent's run too, so that
the caller of a tree of agents sees all of it. The caller's deadline goes along as what is left
of it, and the session, if there is one.

Does not: try again once a peer may have begun; it may have called tools before it failed. A
connection that was refused, or a peer that says it is shutting down, has seen nothing.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import structlog
from pydantic_core import from_json

from kaos import discovery
from kaos.agent.errors import DelegationRefused, reason
from kaos.agent.limits import TIMEOUT_HEADER
from kaos.agent.memory.keeper import SESSION_HEADER
from kaos.agent.openai import Json
from kaos.agent.peer_answer import PeerAnswer
from kaos.agent.runs import RUN_HEADER, STEP_HEADER, Step
from kaos.agent.tools import CallContext, Tool, ToolFailed, fitting_name

log = structlog.get_logger(__name__)

CARD_PATH = "/.well-known/agent-card.json"
PATH_HEADER = "x-kaos-path"
STEPS_HEADER = "x-kaos-steps"
PREFIX = "delegate_to_"
PATIENCE = (0.05, 0.15, 0.4)  # between tries of a connection that was refused
REFRESH = 30.0
REFRESH_WHILE_UNKNOWN = 2.0
CONNECT_TIMEOUT = 5.0
CARD_TIMEOUT = 5.0
MAX_CARD = 256 * 1024
MAX_PATH = 64
_MAX_DESCRIPTION = 2000
_AGENT = re.compile(r"[A-Za-z0-9._-]{1,320}")

_TASK_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "task": {
            "type": "string",
            "description": "What the agent should do, with all that it needs to know for it.",
        }
    },
    "required": ["task"],
}


def delegation_path(headers: Mapping[str, str], identity: str, max_depth: int) -> tuple[str, ...]:
    """Return the path of a request, with this agent at its end.

    Args:
        headers: The request's.
        identity: This agent, as `name.namespace`.
        max_depth: How many agents may be before this one.

    Raises:
        DelegationRefused: The request has been here, or through too many agents.
    """
    path = tuple(part.strip() for part in headers.get(PATH_HEADER, "").split(",") if part.strip())
    if len(path) > min(max_depth, MAX_PATH):
        raise DelegationRefused(
            f"the request has been through {len(path)} agents, and {max_depth} are allowed",
            code="delegation_too_deep",
        )
    if not all(_AGENT.fullmatch(part) for part in path):
        raise DelegationRefused(f"the {PATH_HEADER} header is malformed")
    if identity in path:
        raise DelegationRefused(
            f"a cycle of delegation: {' -> '.join((*path, identity))}", code="delegation_cycle"
        )
    return (*path, identity)


@dataclass(slots=True)
class PeerState:
    """How it stands with one peer, for /readyz."""

    state: str = "unknown"
    error: str = ""


class Peer:
    """One other agent.

    Args:
        name: Its name in `PEER_AGENTS`.
        url: Its base URL, or its card's.
        namespace: The namespace it is in.
        http: The session to use.
        timeout: Seconds for one delegation.
        token_file: A token that says who we are; only ever shown inside the cluster.
    """

    def __init__(
        self,
        name: str,
        url: str,
        namespace: str,
        http: aiohttp.ClientSession,
        timeout: float,
        token_file: str = "",
    ) -> None:
        self.name = name
        self.url = url.removesuffix(CARD_PATH).rstrip("/")
        self.identity = f"{name}.{namespace}"
        self.status = PeerState()
        self.description = ""
        self._etag = ""
        self._http = http
        self._timeout = timeout
        # Who we are is not for somebody outside the cluster, who could be us with it.
        host = urlsplit(self.url).hostname or ""
        inside = host.endswith((".svc", f".svc.{discovery.cluster_domain()}"))
        self._token_file = token_file if inside else ""

    def tool(self) -> Tool:
        """Return the peer as a tool, described by what is known of it now."""
        about = self.description or "its description is not known yet"
        return Tool(
            name=fitting_name(f"{PREFIX}{self.name}"),
            source=self.name,
            description=f"Delegate a task to the agent {self.name!r}: {about}",
            parameters=_TASK_SCHEMA,
            call=self._delegate,
            kind="delegation",
            timeout=self._timeout,
        )

    async def keep(self) -> None:
        """Keep what is known of the peer fresh, until cancelled."""
        while True:
            try:
                await self._read_card()
                self.status = PeerState("ready")
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                if self.status.state != "down":
                    log.info("peer is not there", peer=self.name, url=self.url, error=reason(error))
                self.status = PeerState("down", reason(error))
            known = self.status.state == "ready"
            await asyncio.sleep(REFRESH if known else REFRESH_WHILE_UNKNOWN)

    async def _read_card(self) -> None:
        headers = {"if-none-match": self._etag} if self._etag else {}
        async with self._http.get(
            discovery.locate(self.url + CARD_PATH),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=CARD_TIMEOUT),
            allow_redirects=False,
        ) as response:
            if response.status == 304:
                return
            if response.status != 200:
                raise ValueError(f"its card is HTTP {response.status}")
            card = from_json(await _read(response, MAX_CARD))
            if not isinstance(card, dict):
                raise ValueError("its card is not a JSON object")  # noqa: TRY004 - one kind of error
            self._etag = response.headers.get("etag", "")
            self.description = str(card.get("description") or "")[:_MAX_DESCRIPTION]

    async def _delegate(self, arguments: Json, context: CallContext, step: Step) -> Json:
        task = arguments.get("task")
        if not isinstance(task, str) or not task.strip():
            raise ToolFailed("the argument `task` must be a text that says what to do.")
        if self.identity in context.path:
            route = " -> ".join((*context.path, self.identity))
            raise ToolFailed(f"{self.name} is already waiting for this task ({route}).")
        for pause in (*PATIENCE, None):
            try:
                async with self._http.post(
                    discovery.locate(f"{self.url}/v1/chat/completions"),
                    json=body_of(self.name, task),
                    headers=self._headers(context, step),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                    allow_redirects=False,
                ) as response:
                    if pause is None or not _not_begun(response):
                        return await PeerAnswer(self.name, step, context.run).read(response)
            except aiohttp.ConnectionTimeoutError as error:
                raise ToolFailed(f"{self.name} cannot be reached in time.") from error
            except (aiohttp.ClientError, OSError) as error:
                refused = isinstance(error, aiohttp.ClientConnectorError)
                if pause is None or not refused:
                    raise ToolFailed(f"{self.name} cannot be reached: {reason(error)}") from error
            await asyncio.sleep(pause)
        raise AssertionError

    def _headers(self, context: CallContext, step: Step) -> dict[str, str]:
        left = min(self._timeout, context.deadline - asyncio.get_running_loop().time())
        headers = {
            **step.trace,
            RUN_HEADER: context.run,
            STEP_HEADER: step.id,
            PATH_HEADER: ",".join(context.path),
            TIMEOUT_HEADER: f"{max(left, 0.001):.3f}",
            STEPS_HEADER: "1",
        }
        if context.session:
            headers[SESSION_HEADER] = context.session
        if self._token_file:
            try:  # at each call: the kubelet renews it
                token = Path(self._token_file).read_text("ascii").strip()
            except (OSError, ValueError) as error:
                log.warning("our token for peers cannot be read", error=reason(error))
                raise ToolFailed(f"{self.name} cannot be called: we have no token.") from error
            headers["authorization"] = f"Bearer {token}"
        return headers


def body_of(name: str, task: str) -> Json:
    """Make the request of a delegation: standard roles, and a stream to see the progress."""
    return {"model": name, "messages": [{"role": "user", "content": task}], "stream": True}


def _not_begun(response: aiohttp.ClientResponse) -> bool:
    """Whether the peer says that it has done nothing, and may be asked again at once."""
    return (
        response.status in (429, 503)
        and response.headers.get("x-should-retry") != "false"
        and response.headers.get("retry-after", "") in ("0", "1")
    )


class PeerDirectory:
    """All peers of an agent.

    Args:
        peers: Name to URL.
        namespace: The namespace they are in, which is this agent's.
        http: The session to use; the caller closes it.
        timeout: Seconds for one delegation.
        token_files: For peers that ask for one, the file of a token that says who we are.
    """

    def __init__(
        self,
        peers: Mapping[str, str],
        *,
        namespace: str,
        http: aiohttp.ClientSession,
        timeout: float,
        token_files: Mapping[str, str] | None = None,
    ) -> None:
        files = token_files or {}
        self.peers = tuple(
            Peer(name, url, namespace, http, timeout, files.get(name, ""))
            for name, url in peers.items()
        )

    def tools(self) -> list[Tool]:
        """Return the peers as tools."""
        return [peer.tool() for peer in self.peers]

    async def run(self) -> None:
        """Keep what is known of all peers fresh, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for peer in self.peers:
                group.create_task(peer.keep())


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = await response.content.read(limit + 1)
    while len(body) <= limit and (more := await response.content.read(limit + 1 - len(body))):
        body += more
    if len(body) > limit:
        raise aiohttp.ClientPayloadError(f"the answer is larger than {limit} bytes")
    return body
