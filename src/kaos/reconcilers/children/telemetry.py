"""Telemetry of any resource's pods: the variables that OpenTelemetry reads, and the way out."""

from kaos.api import CustomResource, Telemetry
from kaos.reconcilers.children.network import to_url
from kaos.reconcilers.children.workload import Manifest, literal
from kaos.reconcilers.settings import Settings


def telemetry_env(resource: CustomResource, wish: Telemetry) -> list[tuple[str, str]]:
    """The variables by which a process sends spans and metrics; none without an endpoint."""
    if wish.endpoint is None:
        return []
    return [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", literal(wish.endpoint)),
        ("OTEL_SERVICE_NAME", resource.name),
        ("OTEL_RESOURCE_ATTRIBUTES", f"service.namespace={resource.namespace}"),
    ]


def telemetry_egress(wish: Telemetry, settings: Settings) -> list[Manifest]:
    """Egress to the collector."""
    return [] if wish.endpoint is None else to_url(wish.endpoint, settings.cluster_domain)
