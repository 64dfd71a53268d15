"""A server of custom.metrics.k8s.io for one scenario: the runs under way of agents, by pod.

Runs in a pod of its own with nothing but the standard library. It asks the pods themselves, as an
adapter to Prometheus would in the end; like that one it needs a way in (`network.ingress`).
"""

import datetime as dt
import http.server
import json
import ssl
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
VERSION = "custom.metrics.k8s.io/v1beta2"
METRIC = "kaos_agent_runs"


def pods(namespace: str, selector: str) -> list[dict[str, Any]]:
    """The pods that a selector finds."""
    query = urllib.parse.urlencode({"labelSelector": selector})
    request = urllib.request.Request(
        f"https://kubernetes.default.svc/api/v1/namespaces/{namespace}/pods?{query}",
        headers={"authorization": f"Bearer {(ACCOUNT / 'token').read_text()}"},
    )
    trusted = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=trusted, timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)["items"]
        return found


def runs(address: str) -> str | None:
    """What a pod's own page of metrics says."""
    try:
        with urllib.request.urlopen(f"http://{address}:8000/metrics", timeout=2) as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.partition(" ")
                if name == METRIC:
                    return str(int(float(value)))
    except OSError as error:
        sys.stderr.write(f"{address}: {error}\n")
    return None


def values(path: str, selector: str) -> list[dict[str, Any]]:
    """The values for `namespaces/NAMESPACE/pods/*/METRIC`."""
    namespace = path.split("/namespaces/")[1].split("/", maxsplit=1)[0]
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = []
    for pod in pods(namespace, selector):
        value = runs(pod["status"].get("podIP", ""))
        if value is not None:
            described = {"kind": "Pod", "namespace": namespace, "name": pod["metadata"]["name"]}
            found.append(
                {
                    "describedObject": {**described, "apiVersion": "/v1"},
                    "metric": {"name": METRIC},
                    "timestamp": now,
                    "value": value,
                }
            )
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    """What the API server passes on."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        body: dict[str, Any] = {"kind": "APIResourceList", "apiVersion": "v1"}
        if "/pods/" in url.path:
            selector = urllib.parse.parse_qs(url.query).get("labelSelector", [""])[0]
            items = values(url.path, selector)
            body = {"kind": "MetricValueList", "apiVersion": VERSION, "metadata": {}}
            body["items"] = items
        else:
            resource = {"name": f"pods/{METRIC}", "singularName": "", "namespaced": True}
            body["groupVersion"] = VERSION
            body["resources"] = [{**resource, "kind": "MetricValueList", "verbs": ["get"]}]
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server = http.server.ThreadingHTTPServer(("", 8443), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
