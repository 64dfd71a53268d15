"""The store that the settings name.

Only here it is known which module stands behind which name, so that a pod loads the one it
uses; a client library that is not installed is a clear error at the start.
"""

import importlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kaos.agent.memory.local import LocalStore
from kaos.agent.memory.store import Limits, Store
from kaos.agent.settings import Settings, SettingsError

_SQL_FILE = "sqlite:///"
_SERVERS = {
    "redis": ("RedisStore", ("redis://", "rediss://", "unix://")),
    "postgres": ("PostgresStore", ("postgresql://", "postgres://")),
}


def open_store(settings: Settings) -> Store:
    """Make the store; it connects when it is first used.

    Raises:
        SettingsError: The settings name none that can be used.
    """
    limits = Limits(
        sessions=settings.memory_max_sessions,
        messages=settings.memory_max_session_events,
        ttl=settings.memory_ttl,
    )
    kind, url = settings.memory_type, settings.memory_url.get_secret_value()
    if kind == "local":
        return LocalStore(limits)
    if kind == "sqlite":
        path = url.removeprefix(_SQL_FILE)
        if not path or "://" in path:
            raise SettingsError("MEMORY_URL must be the path of a file when MEMORY_TYPE is sqlite")
        made = _class("sqlite", "SqliteStore")(Path(path), settings.identity, limits)
    else:
        name, schemes = _SERVERS[kind]
        if not url.startswith(schemes):
            raise SettingsError(f"MEMORY_URL must begin with {schemes[0]} for MEMORY_TYPE {kind}")
        made_by = _class(kind, name)
        try:
            _check(url)
            made = made_by(url, settings.identity, limits)
        except ValueError:
            # The reason would quote a part of the password.
            raise SettingsError(
                f"MEMORY_URL is not a URL for MEMORY_TYPE {kind}: in a password / is %2F, # is %23 "
                "and ? is %3F"
            ) from None
    store: Store = made
    return store


def _check(url: str) -> None:
    """Refuse a URL whose password ends its host, as the client would at each request."""
    parts = urlsplit(url)
    rest = f"{parts.path}{parts.query}{parts.fragment}"
    if ":" in parts.netloc and "@" not in parts.netloc and "@" in rest:
        raise ValueError


def _class(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"kaos.agent.memory.{module}"), name)
    except ImportError as error:
        raise SettingsError(
            f"MEMORY_TYPE {module} needs a client that is not there: pip install 'kaos[{module}]'"
        ) from error
