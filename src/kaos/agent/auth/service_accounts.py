"""Callers' service-account tokens: what is allowed, and how the API server is asked.

Guarantees: only accounts on the list come in, and only with a token made for this audience, so
that a token stolen from one service opens no other; an answer holds for a minute at most (a
deleted pod's token is then refused); the API server is asked for what looks like a token only,
by a few at a time, and its failure is a 503 that names what to do.
"""

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from pydantic_core import from_json

from kaos.agent.auth.guard import AuthUnavailable, Forbidden
from kaos.agent.auth.lines import LiveLines
from kaos.agent.errors import reason

log = structlog.get_logger(__name__)

ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PREFIX = "system:serviceaccount:"
TIMEOUT = 5.0
HOLDS = 60.0
MAX_KNOWN = 1000
AT_ONCE = 16
MAX_ANSWER = 1024 * 1024


class AllowList:
    """Which service accounts may call.

    Args:
        entries: `namespace/name`, `namespace/*`, `name` (of our own namespace), or the whole
            `system:serviceaccount:namespace:name`.
        namespace: Our own.
    """

    def __init__(self, entries: Iterable[str], namespace: str) -> None:
        self._allowed = frozenset(_entry(entry, namespace) for entry in entries)

    def check(self, identity: str) -> str:
        """Return the identity if it is allowed.

        Raises:
            Forbidden: It is not.
        """
        namespace, _, name = identity.removeprefix(PREFIX).partition(":")
        is_account = identity.startswith(PREFIX) and name
        if is_account and self._allowed & {(namespace, name), (namespace, "*")}:
            return identity
        raise Forbidden(f"{identity} is not allowed to call this agent")


class AllowFile(AllowList):
    """An allow list in a file, an entry a line; read again when it changed.

    Args:
        path: The file.
        entries: Further entries, that stay.
        namespace: Our own.

    Raises:
        OSError: The file cannot be read at the start.
    """

    def __init__(self, path: Path, entries: Iterable[str], namespace: str) -> None:
        super().__init__(entries, namespace)
        self._given = frozenset(self._allowed)
        self._namespace = namespace
        self._lines = LiveLines(path)

    def check(self, identity: str) -> str:
        """See `AllowList`."""
        if (lines := self._lines.changed()) is not None:
            entries = (line.strip() for line in lines)
            self._allowed = self._given | {
                _entry(entry, self._namespace) for entry in entries if entry
            }
        return super().check(identity)


def _entry(entry: str, namespace: str) -> tuple[str, str]:
    if entry.startswith(PREFIX):
        space, _, name = entry.removeprefix(PREFIX).partition(":")
        return space, name
    space, slash, name = entry.rpartition("/")
    return (space if slash else namespace), name


@dataclass(frozen=True, slots=True)
class ApiServer:
    """How the cluster's API server is reached.

    Attributes:
        url: Its base URL.
        account: The folder of this pod's own service account: `token` and `ca.crt`.
    """

    url: str
    account: Path = ACCOUNT_FOLDER

    def headers(self) -> dict[str, str]:
        """Return our own credentials; the kubelet renews the file."""
        path = self.account / "token"
        try:
            return {"authorization": f"Bearer {path.read_text('ascii').strip()}"}
        except OSError as error:
            raise AuthUnavailable(
                "callers cannot be checked now; see the agent's log"
            ) from _logged(f"our own token cannot be read: {reason(error)}", error)

    def session(self) -> aiohttp.ClientSession:
        """Open a session that trusts the cluster's CA."""
        authority = self.account / "ca.crt"
        trusted: ssl.SSLContext | bool = True
        if authority.exists():
            trusted = ssl.create_default_context(cafile=str(authority))
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
        )

    async def ask(
        self, http: aiohttp.ClientSession, method: str, url: str, body: Any = None
    ) -> Any:
        """Send one request and return the JSON of its answer.

        Raises:
            AuthUnavailable: There is none.
        """
        try:
            async with http.request(
                method, url, json=body, headers=self.headers(), allow_redirects=False
            ) as response:
                content = await response.content.read(MAX_ANSWER)
                if response.status not in (200, 201):
                    said = content[:300].decode("utf-8", "replace")
                    raise ValueError(f"HTTP {response.status}: {said}")  # noqa: TRY301 - one way out
                return from_json(content)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise AuthUnavailable(
                "callers cannot be checked now; see the agent's log", retry_after=2
            ) from _logged(f"{url}: {reason(error)}", error)


def _logged(problem: str, error: BaseException) -> BaseException:
    log.warning("callers cannot be checked", error=problem)
    return error


class TokenReview:
    """A `Verifier` that asks the API server, and so notices revoked tokens.

    The agent's own service account needs the cluster role `system:auth-delegator`.

    Args:
        api: The API server.
        audience: What callers' tokens must be made for.
        allowed: Who may call.
        clock: Tells the time.
    """

    def __init__(
        self,
        api: ApiServer,
        audience: str,
        allowed: AllowList,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._audience = audience
        self._allowed = allowed
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None
        self._known: OrderedDict[bytes, tuple[str | None, float]] = OrderedDict()
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def identify(self, token: str) -> str | None:
        """See `Verifier`."""
        if not is_jwt(token):
            return None
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None or known[1] <= self._clock():
            async with self._slots:
                known = (await self._review(token), self._clock() + HOLDS)
            self._known[digest] = known
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return None if known[0] is None else self._allowed.check(known[0])

    async def close(self) -> None:
        """See `Verifier`."""
        if self._http is not None:
            await self._http.close()

    async def _review(self, token: str) -> str | None:
        self._http = self._http or self._api.session()
        answer = await self._api.ask(
            self._http,
            "POST",
            f"{self._api.url}/apis/authentication.k8s.io/v1/tokenreviews",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [self._audience]},
            },
        )
        status = answer.get("status") if isinstance(answer, dict) else None
        if not isinstance(status, dict) or status.get("authenticated") is not True:
            return None
        # An API server that does not know audiences answers without them.
        if self._audience not in (status.get("audiences") or ()):
            return None
        return str((status.get("user") or {}).get("username") or "") or None


def is_jwt(token: str) -> bool:
    """Tell whether a token looks like a service account's."""
    return token.isascii() and token.count(".") == 2 and all(token.split("."))
