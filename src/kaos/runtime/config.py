"""Where the API server is and how to prove who we are.

Guarantees: a kubeconfig is read as kubectl reads it (see `kubeconfig`); in-cluster and exec-plugin
credentials are had by kr8s (imported only then); `direct` needs nothing but an address. Private
keys that kr8s writes to temporary files are removed, whether or not a TLS context came of them.
Credentials are read again before they expire and after a 401, once for all waiting requests, and
running watches are not touched. They stay those of the context, and the server, of the first login.
A login that fails or hangs (the machine just woke up and has no network yet) ends nothing: the old
token is sent until a later one succeeds. All times are wall-clock times, which go on while a
machine is suspended.
Which failures taught it: kr8s leaves key files on disk at each login, its re-login closes the
connections under every running watch, and it does not know when a plugin's credentials expire;
after a `kubectl config use-context` the new context's token was sent to the old one's server; a
client certificate that was renewed after a 401 was not shown on the connections there were.
"""

import asyncio
import base64
import binascii
import json
import math
import os
import re
import ssl
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

# A bound service account token is rotated at 80 % of its hour; re-reading costs one small file.
_REREAD_AFTER = 60.0
_RENEW_BEFORE = 60.0
# kr8s drops the expiry a plugin tells. The shortest usual life of such credentials is 15 minutes.
# Files change without a word, long before what is in them expires.
_LOGIN_AFTER = 600.0
_CHANGING = ("exec", "tokenFile", "client-certificate")
_LOGIN_AGAIN_AFTER = 10.0
_LOGIN_TIMEOUT = 60.0
_SENDABLE = re.compile(r"[!-~]*")
_log = structlog.get_logger("kaos.runtime")
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# A context without a cluster is kr8s's word for the service account.
_IN_CLUSTER = {"current-context": "", "contexts": [{"name": "", "context": {"cluster": ""}}]}


@dataclass(slots=True)
class Login:
    """What one login gave.

    Attributes:
        token: The bearer token, "" for none.
        tls: The TLS context for new connections, None for plain HTTP or the system's defaults.
        expires: Wall-clock time after which to log in again; 0 for never.
        certificate: The client's certificate, which is in the TLS context.
    """

    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    expires: float = 0.0
    certificate: bytes = field(default=b"", repr=False)


class Credentials:
    """The current token and TLS context, renewed before they expire or when they were refused."""

    def __init__(self, login: Login, renew: Callable[[], Awaitable[Login]] | None = None) -> None:
        self._login = login
        self._renew = renew
        self._lock = asyncio.Lock()
        self._not_before = 0.0

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context for new connections, None for plain HTTP or the system's defaults."""
        return self._login.tls

    async def token(self) -> str:
        """The token to send now, "" for none."""
        return (await self.current()).token

    async def current(self) -> Login:
        """What to prove who we are with now."""
        login = self._login
        # While one request logs in, the others go on with what there is.
        if login.expires and time.time() > login.expires and not self._lock.locked():
            await self._login_again(login)
        return self._login

    async def refresh(self, refused: Login) -> bool:
        """Log in again after a 401.

        Args:
            refused: What was refused. When another request has replaced it meanwhile, nothing is
                done.

        Returns:
            Whether trying again makes sense, i.e. there are other credentials now.
        """
        await self._login_again(refused)
        now = self._login
        return (now.token, now.certificate) != (refused.token, refused.certificate)

    async def _login_again(self, stale: Login) -> None:
        async with self._lock:
            if self._login is not stale or self._renew is None or time.time() < self._not_before:
                return
            try:
                async with asyncio.timeout(_LOGIN_TIMEOUT):
                    self._login = await self._renew()
            except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
                _log.warning("login.failed", error=str(error) or type(error).__name__)
                self._not_before = time.time() + _LOGIN_AGAIN_AFTER


@dataclass(slots=True)
class ClusterConfig:
    """An API server and our credentials for it.

    Attributes:
        server: e.g. ``https://10.0.0.1:6443``, without a slash at the end.
        namespace: The namespace a kubeconfig context or a service account stands for.
        credentials: Token and TLS.
        tls_server_name: The name to check in the server's certificate, when not the host's.
        proxy: A proxy URL from the kubeconfig.
    """

    server: str
    namespace: str = "default"
    credentials: Credentials = field(default_factory=lambda: Credentials(Login()), repr=False)
    tls_server_name: str = ""
    proxy: str = ""

    @classmethod
    def direct(
        cls,
        server: str,
        token: str = "",
        *,
        ca: str | Path | None = None,
        verify: bool = True,
        namespace: str = "default",
    ) -> "ClusterConfig":
        """A server at a known address, without a kubeconfig and without kr8s.

        Args:
            server: Its URL.
            token: A bearer token.
            ca: A file with the CA's certificate, for https.
            verify: Whether to check the server's certificate.
            namespace: The default namespace.
        """
        tls: ssl.SSLContext | None = None
        if server.startswith("https:"):
            tls = ssl.create_default_context(cafile=str(ca) if ca else None)
            if not verify:
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
        return cls(server.rstrip("/"), namespace, Credentials(Login(token, tls)))

    @classmethod
    async def load(
        cls, kubeconfig: Path | None = None, context: str | None = None
    ) -> "ClusterConfig":
        """The server of a kubeconfig, or of the pod we run in.

        Args:
            kubeconfig: The file; default: ``KUBECONFIG``, ``~/.kube/config``, then in-cluster.
            context: The context; default: the current one.

        Raises:
            ValueError: When no server is found, or the context does not exist.
        """
        first, auth = await _log_in(kubeconfig, context)

        async def again() -> Login:
            login, found = await _log_in(kubeconfig, auth.active_context or None)
            if found.server != auth.server:
                raise ValueError(f"{_places(kubeconfig)}: now of another server, {found.server}")
            return login

        return cls(
            auth.server.rstrip("/"),
            auth.namespace if auth.active_context else _pod_namespace(auth.namespace),
            Credentials(first, again),
            auth.tls_server_name or "",
            auth.proxy or "",
        )


async def _log_in(kubeconfig: Path | None, context: str | None) -> tuple[Login, Any]:
    """One login, and kr8s's object of it."""
    from kr8s._auth import KubeAuth  # noqa: PLC0415 - slow to import, and not always needed

    from kaos.runtime.kubeconfig import files, read  # noqa: PLC0415 - as above

    auth: Any = None
    try:
        given = await asyncio.to_thread(read, files(kubeconfig), context)
        plain: Any = given or _IN_CLUSTER  # kr8s takes a dict, too, but does not say so
        auth = KubeAuth(kubeconfig=plain, serviceaccount=str(_SERVICE_ACCOUNT))
        await auth.reauthenticate()
        tls = await auth.ssl_context()
        certificate = _certificate(auth)
        if isinstance(tls, ssl.SSLContext) and not auth.server_ca_file:
            tls.load_default_certs()
        token = _token(auth)
    # kr8s raises anything: KeyError for what is missing, RuntimeError for a plugin that fails.
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        raise ValueError(f"no usable cluster in {_places(kubeconfig)}: {error}") from error
    finally:
        if auth is not None:
            _remove_temporary_files(auth)
    expires = _expiry(token)
    if given is None or any(name in auth._user for name in _CHANGING):  # noqa: SLF001
        expires = min(expires or math.inf, time.time() + _LOGIN_AFTER)
    usable = tls if isinstance(tls, ssl.SSLContext) else None
    return Login(token, usable, expires, certificate), auth


def _certificate(auth: Any) -> bytes:
    """The client's certificate; b"" for none."""
    return Path(auth.client_cert_file).read_bytes() if auth.client_cert_file else b""


def _token(auth: Any) -> str:
    """The token of a login; kr8s knows nothing of `tokenFile`, which wins over `token`."""
    token = str(auth.token or "")
    if file := auth._user.get("tokenFile"):  # noqa: SLF001 - see `_is_inline`
        try:
            token = Path(file).read_text()
        except OSError as error:
            raise ValueError(f"the tokenFile of the kubeconfig cannot be read: {error}") from error
    token = token.strip()
    # A login that fails is tried again; a header that cannot be sent would end its request.
    if not _SENDABLE.fullmatch(token):
        raise ValueError("the token is none: it has a space, a line break or a control character")
    return token


def _places(kubeconfig: Path | None) -> str:
    if kubeconfig is not None:
        return str(kubeconfig)
    return f"{os.environ.get('KUBECONFIG', '~/.kube/config')} and in-cluster"


def _pod_namespace(fallback: str) -> str:
    """The namespace of the pod we run in; kr8s says "default" there."""
    try:
        return (_SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        return fallback


def _remove_temporary_files(auth: Any) -> None:
    """Remove the copies of key and certificates that kr8s wrote, now that they are loaded."""
    for name in ("client_key_file", "client_cert_file", "server_ca_file"):
        path = getattr(auth, name)
        # Files of the user's own are elsewhere, or were named in the kubeconfig and not written.
        # (The temporary folder is asked for last: a pod with a read-only root has none.)
        if (
            path
            and _is_inline(auth, name)
            and Path(path).resolve().parent == Path(tempfile.gettempdir()).resolve()
        ):
            Path(path).unlink(missing_ok=True)
            setattr(auth, name, None)


def _is_inline(auth: Any, name: str) -> bool:
    user, cluster = auth._user, auth._cluster  # noqa: SLF001 - kr8s keeps no public record of it
    return {
        "client_key_file": "client-key-data" in user,
        "client_cert_file": "client-certificate-data" in user,
        "server_ca_file": "certificate-authority-data" in cluster,
    }[name]


def _expiry(token: str) -> float:
    """When to log in again: shortly before a JWT expires; 0 (never) for any other token."""
    if not token:
        return 0.0
    parts = token.split(".")
    now = time.time()
    if len(parts) != 3:
        return 0.0
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        expires = float(claims["exp"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return 0.0
    return max(expires - _RENEW_BEFORE, now + _REREAD_AFTER)
