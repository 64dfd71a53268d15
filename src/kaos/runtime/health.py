"""Probes and metrics over HTTP (surface; body follows)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpServer:
    """Where /healthz, /readyz and /metrics are served; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8080
