"""Service DNS: which address stands behind a Service's name right now.

Guarantees: on a cluster a URL is left alone, for DNS and the Service do the work. On the
embedded cluster (`KAOS_SERVICE_MAP` is set) a Service's URL becomes the address of the
node's local proxy, from a file that is read again whenever it changed; so an address is
never older than the moment of the call, and a peer that moved is found without a restart.

Does not: open a connection, check that anybody answers, or cache a lookup.

The cluster's domain is read from resolv.conf, never assumed: clusters with a domain of
their own exist, and a name that is spelled out wrong fails only when it is dialled.
"""

import functools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

SERVICE_MAP_VARIABLE = "KAOS_SERVICE_MAP"
DOMAIN_VARIABLE = "KAOS_CLUSTER_DOMAIN"
NAMESPACE_VARIABLE = "KAOS_POD_NAMESPACE"
DEFAULT_DOMAIN = "cluster.local"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_RESOLV_CONF = Path("/etc/resolv.conf")


class ServiceNotFound(ConnectionError):  # noqa: N818 - the word Kubernetes users know
    """The embedded cluster has no such Service and port.

    An `OSError`, because a caller that dials must be ready for one anyway; raised at once,
    where a DNS lookup of a name that nobody serves would take seconds to fail.
    """


@dataclass(slots=True)
class _ServiceMap:
    """The last good reading of the service map file."""

    stamp: tuple[str, int, int] | None = None
    entries: dict[str, str] | None = None

    def read(self, path: str) -> dict[str, str]:
        try:
            info = Path(path).stat()
        except FileNotFoundError:
            return {}  # the node has not written it yet
        stamp = (path, info.st_mtime_ns, info.st_ino)
        if self.entries is None or stamp != self.stamp:
            try:
                loaded = json.loads(Path(path).read_bytes())
            except ValueError as error:
                raise ServiceNotFound(f"the service map {path} is not JSON: {error}") from error
            self.entries = {str(name).lower(): str(addr) for name, addr in loaded.items()}
            self.stamp = stamp
        return self.entries


_service_map = _ServiceMap()


def locate(url: str, service_map: str = "") -> str:
    """Return the URL to dial for `url` now.

    Args:
        url: Any http or https URL. Hosts `svc.ns.svc.<domain>`, `svc.ns.svc`, `svc.ns` and
            `svc` (in the pod's own namespace) are Services; any other host is left alone.
        service_map: The embedded cluster's file, for who is on none of its nodes; default:
            `KAOS_SERVICE_MAP`.

    Raises:
        ServiceNotFound: On the embedded cluster, for a Service it does not have.
    """
    path = service_map or os.environ.get(SERVICE_MAP_VARIABLE)
    if not path:
        return url
    parts = urlsplit(url)
    entries = _service_map.read(path)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 80)
    name = (parts.hostname or "").rstrip(".")
    candidates = _full_names(name)
    for candidate in candidates:
        if target := entries.get(f"{candidate}:{port}"):
            return urlunsplit(parts._replace(netloc=target))
    if name.endswith((f".svc.{cluster_domain()}", ".svc")):
        known = ", ".join(sorted(entries)) or "none"
        raise ServiceNotFound(
            f"no Service answers to {candidates[0]}:{port} on this cluster (known: {known})"
        )
    return url


def _full_names(host: str) -> list[str]:
    """The full Service names that `host` may stand for, likeliest first."""
    domain = cluster_domain()
    namespace = os.environ.get(NAMESPACE_VARIABLE, "default")
    if host.endswith(f".svc.{domain}"):
        return [host]
    if host.endswith(".svc"):
        return [f"{host}.{domain}"]
    match host.count("."):
        case 0:
            return [f"{host}.{namespace}.svc.{domain}"]
        case 1:
            return [f"{host}.svc.{domain}"]
        case _:
            return [host]


def cluster_domain() -> str:
    """Return the cluster's DNS domain: `KAOS_CLUSTER_DOMAIN`, resolv.conf, or the usual one."""
    return os.environ.get(DOMAIN_VARIABLE) or _domain_of(_RESOLV_CONF)


@functools.lru_cache(maxsize=8)
def _domain_of(resolv_conf: Path) -> str:
    """The domain in the `svc.<domain>` entry of the search list (the last list counts)."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        return DEFAULT_DOMAIN
    searches = [fields[1:] for line in lines if (fields := line.split())[:1] == ["search"]]
    for entry in searches[-1] if searches else []:
        if entry.startswith("svc.") and (domain := entry.removeprefix("svc.").rstrip(".")):
            return domain
    return DEFAULT_DOMAIN


def service_url(service: str, namespace: str, port: int = 80) -> str:
    """Return `http://<service>.<namespace>.svc.<domain>[:port]`, without the port if it is 80."""
    host = f"{service}.{namespace}.svc.{cluster_domain()}"
    return f"http://{host}" if port == 80 else f"http://{host}:{port}"
