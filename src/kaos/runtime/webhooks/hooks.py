"""Declaring admission webhooks, and the configurations that make the API server call them.

Guarantees: what is declared here is what the API server is told: one entry per kind and purpose,
with the current bundle; applying the same again changes nothing.
Does not: guess. A kind without a handler is not called for.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from kaos.runtime.resources import (
    MUTATING_WEBHOOK_CONFIGURATION,
    VALIDATING_WEBHOOK_CONFIGURATION,
    Resource,
    ResourceType,
)
from kaos.runtime.webhooks.review import Handler

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT", "*"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the webhooks are served and how the API server reaches them.

    Attributes:
        service: The Service before our pods, as (name, namespace).
        url: Instead of a service, e.g. ``https://host.docker.internal:9443`` while developing.
        secret: The Secret that keeps the certificate; default: named like the webhooks.
        namespace: The Secret's namespace; default: the service's.
        host: The address to listen on. Inside a pod that is ``0.0.0.0``.
        port: The port to listen on; 0 takes a free one.
        service_port: The Service's port.
    """

    service: tuple[str, str] | None = None
    url: str = ""
    secret: str = ""
    namespace: str = ""
    host: str = "127.0.0.1"
    port: int = 9443
    service_port: int = 443

    def __post_init__(self) -> None:
        if (self.service is None) == (not self.url):
            raise ValueError("webhooks: give either the service before our pods, or a url")
        if self.url and not self.url.startswith("https://"):
            raise ValueError(f"webhooks: the API server calls https only, not {self.url}")
        if self.service is None and not self.namespace:
            raise ValueError("webhooks: with a url, name the namespace of the Secret")

    @property
    def names(self) -> list[str]:
        """The host names in the certificate."""
        if self.service is not None:
            name, namespace = self.service
            return [f"{name}.{namespace}.svc", f"{name}.{namespace}"]
        return [urlsplit(self.url).hostname or "localhost"]

    @property
    def secret_namespace(self) -> str:
        """Where the Secret is."""
        return self.namespace or (self.service[1] if self.service is not None else "")

    def client_config(self, path: str, bundle: str) -> dict[str, Any]:
        """How the API server is told to call a path."""
        trusted = {"caBundle": base64.b64encode(bundle.encode()).decode()}
        if self.service is None:
            return {**trusted, "url": self.url.rstrip("/") + path}
        name, namespace = self.service
        service = {"name": name, "namespace": namespace, "path": path, "port": self.service_port}
        return {**trusted, "service": service}


@dataclass(slots=True)
class Hook:
    """One kind's handlers for one purpose."""

    resource: ResourceType
    defaults: bool
    operations: list[Operation]
    options: dict[str, Any]
    handlers: list[Handler] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Where it is called."""
        group = self.resource.group or "core"
        return f"/{self.verb}/{group}/{self.resource.version}/{self.resource.plural}"

    @property
    def verb(self) -> str:
        """``default`` or ``validate``."""
        return "default" if self.defaults else "validate"

    def entry(self, endpoint: Endpoint, bundle: str) -> dict[str, Any]:
        """Its part of the configuration."""
        resource = self.resource
        rule = {
            "apiGroups": [resource.group],
            "apiVersions": [resource.version],
            "resources": [resource.plural],
            "operations": self.operations,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
        }
        return {
            "name": f"{self.verb}.{resource.plural}.{resource.group or 'core'}",
            "clientConfig": endpoint.client_config(self.path, bundle),
            "rules": [rule],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "matchPolicy": "Equivalent",
            "timeoutSeconds": 10,
            **self.options,
        }


class Hooks:
    """Handlers by kind and purpose."""

    def __init__(self) -> None:
        self._hooks: dict[str, Hook] = {}

    def __iter__(self) -> Iterator[Hook]:
        return iter(self._hooks.values())

    def add(
        self,
        resource: Resource,
        *,
        defaults: bool,
        operations: Sequence[Operation],
        options: dict[str, Any],
    ) -> Callable[[Handler], Handler]:
        """A decorator that adds a handler."""
        hook = Hook(ResourceType.of(resource), defaults, sorted(operations), options)
        hook = self._hooks.setdefault(hook.path, hook)
        if (hook.operations, hook.options) != (sorted(operations), options):
            raise ValueError(f"{hook.path} has a handler with other operations or options already")

        def decorate(handler: Handler) -> Handler:
            hook.handlers.append(handler)
            return handler

        return decorate

    def configurations(self, name: str, endpoint: Endpoint, bundle: str) -> list[dict[str, Any]]:
        """The objects that make the API server call."""
        found: list[dict[str, Any]] = []
        for resource, defaults in (
            (MUTATING_WEBHOOK_CONFIGURATION, True),
            (VALIDATING_WEBHOOK_CONFIGURATION, False),
        ):
            entries = [h.entry(endpoint, bundle) for h in self if h.defaults is defaults]
            if entries:
                found.append(resource.body(name, webhooks=entries))
        return found
