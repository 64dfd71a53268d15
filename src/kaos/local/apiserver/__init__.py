"""A Kubernetes API server small enough to live inside a process.

It speaks the protocol well enough for kubectl, client-go and kaos.runtime to
notice no difference in what they use; it runs no admission webhooks, no
authorisation and no kubelet. Layers, lowest first: errors and registry, store,
the pure write path (patches, apply, schema, strategies), resources, the HTTP
shell (watch, discovery, auth, app), server.
"""

from kaos.local.apiserver.nodeproxy import NodeProxy
from kaos.local.apiserver.server import APIServer

__all__ = ["APIServer", "NodeProxy"]
