"""Where a resource's pods send what they measure."""

from pydantic import Field, field_validator

from kaos.api.meta import Model
from kaos.api.url import checked_url


class Telemetry(Model):
    """Where traces and metrics are sent; nothing is without an endpoint."""

    endpoint: str | None = Field(
        default=None,
        max_length=2048,
        pattern=r"^https?://[^\s/]",
        description="A collector that takes OTLP over HTTP, e.g. http://collector.obs.svc:4318.",
    )

    _checked = field_validator("endpoint")(checked_url)
