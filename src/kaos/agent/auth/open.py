"""The verifiers that the settings ask for."""

import os
from collections.abc import Mapping
from pathlib import Path

from kaos.agent.auth.guard import Verifier
from kaos.agent.auth.service_accounts import AllowFile, AllowList, ApiServer, TokenReview
from kaos.agent.auth.tokens import TokenFile, Tokens
from kaos.agent.errors import reason
from kaos.agent.settings import Settings, SettingsError


def open_verifiers(settings: Settings, env: Mapping[str, str] = os.environ) -> list[Verifier]:
    """Make the verifiers; none means that everybody may call.

    Raises:
        SettingsError: What was asked for cannot be done. Never is the door left open instead.
    """
    verifiers: list[Verifier] = []
    if given := settings.auth_tokens.get_secret_value():
        verifiers.append(Tokens(given.replace(",", "\n").splitlines()))
    if settings.auth_tokens_file:
        try:
            verifiers.append(TokenFile(Path(settings.auth_tokens_file)))
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"KAOS_AUTH_TOKENS_FILE {settings.auth_tokens_file}: {reason(error)}"
            ) from error
    if settings.auth_service_accounts:
        verifiers.append(_service_accounts(settings, env))
    return verifiers


def _service_accounts(settings: Settings, env: Mapping[str, str]) -> Verifier:
    allowed = _allow_list(settings)
    url = settings.auth_api_server.rstrip("/") or _in_cluster(env)
    keys = settings.auth_jwks_url
    if not url and not (settings.auth_service_accounts == "jwks" and keys):
        raise SettingsError(
            "KAOS_AUTH_SERVICE_ACCOUNTS is set outside a cluster: set KAOS_AUTH_API_SERVER"
        )
    api = ApiServer(url)
    if settings.auth_service_accounts == "tokenreview":
        return TokenReview(api, settings.auth_audience, allowed)
    # Loaded only here: PyJWT brings a cryptography library of 10 MB along.
    from kaos.agent.auth.jwks import Jwks  # noqa: PLC0415

    keys = keys or f"{url}/openid/v1/jwks"
    return Jwks(api, keys, settings.auth_issuer, settings.auth_audience, allowed)


def _allow_list(settings: Settings) -> AllowList:
    entries = settings.auth_allow.replace(",", " ").split()
    if not settings.auth_allow_file:
        if not entries:
            raise SettingsError(
                "KAOS_AUTH_SERVICE_ACCOUNTS is set, but KAOS_AUTH_ALLOW names nobody who may call"
            )
        return AllowList(entries, settings.namespace)
    try:
        return AllowFile(Path(settings.auth_allow_file), entries, settings.namespace)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"KAOS_AUTH_ALLOW_FILE {settings.auth_allow_file}: {reason(error)}"
        ) from error


def _in_cluster(env: Mapping[str, str]) -> str:
    host, port = env.get("KUBERNETES_SERVICE_HOST", ""), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return ""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
