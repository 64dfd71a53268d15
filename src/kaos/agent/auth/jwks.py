"""Callers' service-account tokens, checked by the keys that the cluster publishes (PyJWT).

Guarantees: signature, issuer, audience and time are all checked, with asymmetric algorithms
only, and by keys of the issuer only; new keys are noticed when a token names one, at most once
in `REFRESH_AT_MOST` seconds. Nothing is asked of the API server for a token, and so a token
that was revoked is good until it ends: where that matters, use TokenReview.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import structlog

from kaos.agent.auth.guard import AuthUnavailable
from kaos.agent.auth.service_accounts import AllowList, ApiServer, is_jwt

log = structlog.get_logger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
REFRESH = 600.0
REFRESH_AT_MOST = 10.0
LEEWAY = 5.0


class Jwks:
    """A `Verifier` by published keys.

    Args:
        api: The API server; its credentials go along when the keys are its own.
        url: Where the keys are.
        issuer: What callers' tokens must be made by; when empty, by whoever made our own.
        audience: What they must be made for.
        allowed: Who may call.
        clock: Tells the time for the keys' age.
    """

    def __init__(
        self,
        api: ApiServer,
        url: str,
        issuer: str,
        audience: str,
        allowed: AllowList,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._url = url
        self._issuer = issuer
        self._audience = audience
        self._allowed = allowed
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None
        self._keys: dict[str, Any] = {}
        self._read = float("-inf")
        self._reading = asyncio.Lock()

    async def identify(self, token: str) -> str | None:
        """See `Verifier`."""
        if not is_jwt(token):
            return None
        try:
            key = await self._key(str(jwt.get_unverified_header(token).get("kid") or ""))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._made_by(),
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.InvalidTokenError as error:
            log.info("token not valid", why=type(error).__name__)
            return None
        return self._allowed.check(str(claims["sub"]))

    async def close(self) -> None:
        """See `Verifier`."""
        if self._http is not None:
            await self._http.close()

    def _made_by(self) -> str:
        """The issuer; clusters have names for theirs that nothing else tells."""
        if not self._issuer:
            own = self._api.headers()["authorization"].removeprefix("Bearer ")
            # Not verified: the kubelet put it there, and by the keys alone a caller is verified.
            self._issuer = str(jwt.decode(own, options={"verify_signature": False}).get("iss", ""))
        return self._issuer

    async def _key(self, name: str) -> Any:
        async with self._reading:
            age = self._clock() - self._read
            if age > REFRESH or (name not in self._keys and age > REFRESH_AT_MOST):
                try:
                    self._keys = await self._fetch()
                except AuthUnavailable:
                    if name not in self._keys:
                        raise
                self._read = self._clock()
        return self._keys.get(name)

    async def _fetch(self) -> dict[str, Any]:
        self._http = self._http or self._api.session()
        answer = await self._api.ask(self._http, "GET", self._url)
        try:
            found = jwt.PyJWKSet.from_dict(answer).keys
        except (jwt.PyJWTError, AttributeError, TypeError, ValueError) as error:
            log.warning("callers cannot be checked", error=f"{self._url}: not a key set")
            raise AuthUnavailable("callers cannot be checked now; see the agent's log") from error
        return {key.key_id or "": key for key in found if key.public_key_use in (None, "sig")}
