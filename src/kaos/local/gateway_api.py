"""The part of the Gateway API that the embedded cluster has: three kinds and one Gateway.

Guaranteed: controllers that look for the Gateway API find it, served under its own group and
version, and a Gateway ``kaos-gateway/kaos-gateway`` to attach routes to. The node serves the
routes.

Not guaranteed: validation. The schemas accept anything, because the real ones (half a megabyte)
are the business of a real cluster, and what KAOS writes is tested against those there.
"""

from typing import Any

GROUP = "gateway.networking.k8s.io"
VERSION = "v1"
NAMESPACE = "kaos-gateway"
NAME = "kaos-gateway"
CLASS = "kaos"
CONTROLLER = "kaos.tools/embedded"


def crds() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of GatewayClass, Gateway and HTTPRoute."""
    return [
        _crd("GatewayClass", "gatewayclasses", "gc", scope="Cluster"),
        _crd("Gateway", "gateways", "gtw", scope="Namespaced"),
        _crd("HTTPRoute", "httproutes", "", scope="Namespaced"),
    ]


def objects(port: int) -> list[dict[str, Any]]:
    """The class, the namespace and the Gateway whose listener is ``port``."""
    api_version = f"{GROUP}/{VERSION}"
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": api_version,
            "kind": "GatewayClass",
            "metadata": {"name": CLASS},
            "spec": {"controllerName": CONTROLLER},
        },
        {
            "apiVersion": api_version,
            "kind": "Gateway",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {
                "gatewayClassName": CLASS,
                "listeners": [
                    {
                        "name": "http",
                        "protocol": "HTTP",
                        "port": port,
                        "allowedRoutes": {"namespaces": {"from": "All"}},
                    }
                ],
            },
        },
    ]


def _crd(kind: str, plural: str, short: str, *, scope: str) -> dict[str, Any]:
    names: dict[str, Any] = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "categories": ["gateway-api"],
    }
    if short:
        names["shortNames"] = [short]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            # The API server of a real cluster wants this on every *.k8s.io group; harmless here.
            "annotations": {"api-approved.kubernetes.io": "unapproved, embedded KAOS cluster"},
        },
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": names,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"spec": anything, "status": anything},
                        }
                    },
                }
            ],
        },
    }
