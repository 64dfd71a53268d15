"""The kubeconfig of the embedded cluster.

Guaranteed: any Kubernetes client can use it (one context, ``kaos``, and it is the current one); it
is replaced in one step and is readable by its owner only, for it holds the token.

It is JSON, which is YAML too: so no YAML library is loaded on the way to a ready cluster.
"""

import base64
import json
from pathlib import Path
from typing import Any

from kaos.local.state import write_private

CONTEXT = "kaos"


def build(url: str, token: str, authority: bytes = b"") -> dict[str, Any]:
    """A kubeconfig with one context, for the API server at ``url``.

    Args:
        url: Where the API server is.
        token: The bearer token.
        authority: The certificate that the server's is to be verified by, as PEM; none for http.
    """
    cluster = {"server": url}
    if authority:
        cluster["certificate-authority-data"] = base64.b64encode(authority).decode("ascii")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [
            {
                "name": CONTEXT,
                "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"},
            }
        ],
        "current-context": CONTEXT,
    }


def write(path: Path, url: str, token: str, authority: bytes = b"") -> None:
    """Write the kubeconfig for the API server at ``url`` to ``path``."""
    write_private(path, json.dumps(build(url, token, authority), indent=2) + "\n")
