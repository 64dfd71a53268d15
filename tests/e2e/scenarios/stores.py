"""A Redis or a PostgreSQL that agents can reach: in a pod, or beside the embedded cluster.

In a pod it is of the image that `KAOS_E2E_STORES_IMAGE` names (see stores.Dockerfile); where there
is none, the scenarios about it are skipped.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.scenarios.manifests import Manifest, as_list
from tests.e2e.scenarios.targets import Embedded, Target
from tests.integration.agent.servers import postgres_server, redis_server

IMAGE = os.environ.get("KAOS_E2E_STORES_IMAGE", "")
PORTS = {"redis": 6379, "postgres": 5432}
URLS = {"redis": "redis://{at}/0", "postgres": "postgresql://postgres@{at}/postgres"}
COMMANDS = {
    "redis": "exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --dir /tmp",
    "postgres": (
        "PATH=$(echo /usr/lib/postgresql/*/bin):$PATH; initdb -D /tmp/data -A trust -N"
        " && echo 'host all all all trust' >> /tmp/data/pg_hba.conf"
        " && exec postgres -D /tmp/data -c 'listen_addresses=*' -c unix_socket_directories=/tmp"
    ),
}


@contextlib.contextmanager
def store(target: Target, namespace: str, kind: str) -> Iterator[str]:
    """A server for the length of the block; yields the URL that an agent is given."""
    if isinstance(target, Embedded):
        with beside(kind) as at:
            yield URLS[kind].format(at=at)
        return
    if not IMAGE:
        pytest.skip("KAOS_E2E_STORES_IMAGE names no image with Redis and PostgreSQL in it")
    target.kubectl("apply", "-n", namespace, "-f", "-", stdin=as_list(*manifests(kind)))
    target.kubectl("rollout", "status", f"deployment/{kind}", "-n", namespace, "--timeout=90s")
    yield URLS[kind].format(at=f"{kind}:{PORTS[kind]}")


@contextlib.contextmanager
def beside(kind: str) -> Iterator[str]:
    """A server on this machine; yields its address."""
    servers = {"redis": redis_server, "postgres": postgres_server}
    with tempfile.TemporaryDirectory(prefix="kaos-") as made:
        folder = Path(made)
        folder.chmod(0o755)  # PostgreSQL is another user
        with servers[kind](folder) as server:
            yield f"127.0.0.1:{server.port}"


def manifests(kind: str) -> list[Manifest]:
    """The server in a pod behind a Service."""
    labels, port = {"app": kind}, PORTS[kind]
    container = {
        "name": kind,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", COMMANDS[kind]],
        "ports": [{"containerPort": port}],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": kind},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": kind},
            "spec": {"selector": labels, "ports": [{"port": port}]},
        },
    ]
