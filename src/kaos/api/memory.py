"""What an agent remembers of its conversations, and where."""

from enum import StrEnum
from typing import Self

from pydantic import Field, field_validator, model_validator

from kaos.api.meta import Model
from kaos.api.pod import KeySource, Quantity
from kaos.api.url import checked_url


class MemoryType(StrEnum):
    """Where sessions are kept."""

    LOCAL = "local"
    SQLITE = "sqlite"
    REDIS = "redis"
    POSTGRES = "postgres"


class Memory(Model):
    """What an agent remembers of its conversations, and where."""

    enabled: bool = Field(default=True, description="Whether sessions are kept at all.")
    type: MemoryType = Field(
        default=MemoryType.LOCAL,
        description="local: in the pod, gone with it. sqlite: in a volume (set storage). redis, "
        "postgres: in a server at url, shared by all replicas.",
    )
    url: str | None = Field(
        default=None,
        max_length=2048,
        pattern=r"^(rediss?|postgres(ql)?)://",
        description="The server of type redis or postgres; one with a password belongs in urlFrom.",
    )
    url_from: KeySource | None = Field(
        default=None,
        description="Where url is read from. Its port is taken to be the usual one (6379, 5432); "
        "another takes a rule in network.egress.",
    )
    storage: Quantity | None = Field(
        default=None, description="Size of the claim that keeps the sessions of type sqlite."
    )
    context_limit: int | None = Field(
        default=None,
        ge=0,
        le=10_000_000,
        description="How much of a session's past goes into a prompt, in tokens; up to 100, in "
        "messages (default 4096).",
    )
    max_sessions: int | None = Field(
        default=None, ge=1, le=1_000_000, description="How many are kept (default 1000)."
    )
    max_session_events: int | None = Field(
        default=None,
        ge=2,
        le=100_000,
        description="How many messages of each are kept (default 500).",
    )
    ttl: str | None = Field(
        default=None,
        pattern=r"^[1-9][0-9]{0,8}(s|m|h|d)$",
        description="How long an idle session is kept, e.g. 24h (default 7d).",
    )

    _checked = field_validator("url")(checked_url)

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        server = self.type in (MemoryType.REDIS, MemoryType.POSTGRES)
        if server != ((self.url is None) != (self.url_from is None)):
            told = "set exactly one of url and urlFrom" if server else "url is for redis, postgres"
            raise ValueError(f"type {self.type}: {told}")
        if self.url is not None and not self.url.startswith(self.type):
            raise ValueError(f"type {self.type}: url must begin with {self.type}")
        if (self.type is MemoryType.SQLITE) != (self.storage is not None):
            raise ValueError("storage and type sqlite belong together")
        return self

    @property
    def ttl_seconds(self) -> int | None:
        """The time to live in seconds."""
        if self.ttl is None:
            return None
        return int(self.ttl[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[self.ttl[-1]]
