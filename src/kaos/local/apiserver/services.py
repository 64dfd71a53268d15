"""What a Service is given by the server: its addresses, its ports, what may not change.

Guarantees: a cluster IP of 10.96.0.0/16 and a node port of 30000-32767 that no
other Service has, kept over updates that leave them out; a cluster IP cannot be
changed. The addresses are numbers only: nothing routes them here.
"""

from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from itertools import chain
from typing import Any

from kaos.local.apiserver.errors import (
    Cause,
    field_invalid,
    field_required,
    field_unsupported,
)
from kaos.local.apiserver.poddefaults import fill

_NETWORK = IPv4Network("10.96.0.0/16")
_NODE_PORTS = range(30000, 32768)
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")

Services = Callable[[], Iterator[dict[str, Any]]]


class ServiceAddresses:
    """Hands out cluster IPs and node ports; what is in use is read once, then kept up.

    Args:
        existing: All services now, asked for once.
    """

    def __init__(self, existing: Services) -> None:
        self._existing = existing
        self._used: set[Any] | None = None
        self._next = 10  # the first addresses are for the cluster's own services

    def _taken(self) -> set[Any]:
        if self._used is None:
            self._used = set(chain.from_iterable(map(_addresses, self._existing())))
        return self._used

    def written(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """Follow a write of a Service."""
        taken = self._taken()
        taken.difference_update(_addresses(old) if old else ())
        taken.update(_addresses(new) if new else ())

    def cluster_ip(self) -> str:
        """A free cluster IP."""
        taken = self._taken()
        for _ in range(_NETWORK.num_addresses):
            self._next = self._next % (_NETWORK.num_addresses - 2) + 1
            address = str(_NETWORK[self._next])
            if address not in taken:
                return address
        raise OverflowError(f"no free address in {_NETWORK}")

    def node_port(self, also: set[int]) -> int:
        """A free node port that is not in ``also`` either."""
        taken = self._taken()
        for port in _NODE_PORTS:
            if port not in taken and port not in also:
                return port
        raise OverflowError(f"no free node port in {_NODE_PORTS}")


def _addresses(service: dict[str, Any]) -> list[Any]:
    spec = service.get("spec") or {}
    ports = [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    address = spec.get("clusterIP")
    return [*ports, address] if address and address != "None" else ports


def default_service(
    service: dict[str, Any], old: dict[str, Any] | None, addresses: ServiceAddresses
) -> None:
    """Fill in type, addresses and ports."""
    spec = service.setdefault("spec", {})
    fill(spec, type="ClusterIP", sessionAffinity="None")
    before = (old or {}).get("spec") or {}
    for port in spec.get("ports") or ():
        fill(port, protocol="TCP")
        fill(port, targetPort=port.get("port"))
    if spec["type"] == "ExternalName":
        for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec.pop(field, None)
        return
    fill(spec, internalTrafficPolicy="Cluster")
    if not spec.get("clusterIP"):
        listed = (spec.get("clusterIPs") or [""])[0]
        spec["clusterIP"] = before.get("clusterIP") or listed or addresses.cluster_ip()
    fill(spec, clusterIPs=[spec["clusterIP"]], ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    if spec["type"] in {"NodePort", "LoadBalancer"}:
        fill(spec, externalTrafficPolicy="Cluster")
        if spec["type"] == "LoadBalancer":
            fill(spec, allocateLoadBalancerNodePorts=True)
        _default_node_ports(spec, before, addresses)


def _default_node_ports(
    spec: dict[str, Any], before: dict[str, Any], addresses: ServiceAddresses
) -> None:
    known = {
        (port.get("protocol"), port.get("port")): port.get("nodePort")
        for port in before.get("ports") or ()
    }
    ports = spec.get("ports") or ()
    given = {port["nodePort"] for port in ports if port.get("nodePort")}
    for port in ports:
        if not port.get("nodePort"):
            kept = known.get((port.get("protocol"), port.get("port")))
            port["nodePort"] = kept or addresses.node_port(given)
            given.add(port["nodePort"])


def validate_service(service: dict[str, Any], old: dict[str, Any] | None) -> list[Cause]:
    """What is wrong with a Service about to be written."""
    spec = service["spec"]
    causes = []
    if spec["type"] not in _TYPES:
        causes.append(field_unsupported("spec.type", spec["type"], _TYPES))
    ports = spec.get("ports") or []
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        causes.append(field_required("spec.ports"))
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        if len(ports) > 1 and not port.get("name"):
            causes.append(field_required(f"{at}.name"))
        number = port.get("port")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            text = "must be between 1 and 65535, inclusive"
            causes.append(field_invalid(f"{at}.port", number, text))
        if port["protocol"] not in {"TCP", "UDP", "SCTP"}:
            supported = ("SCTP", "TCP", "UDP")
            causes.append(field_unsupported(f"{at}.protocol", port["protocol"], supported))
    before = ((old or {}).get("spec") or {}).get("clusterIP")
    if before and spec["type"] != "ExternalName" and spec.get("clusterIP") != before:
        addresses = [spec.get("clusterIP")]
        causes.append(field_invalid("spec.clusterIPs[0]", addresses, "may not change once set"))
    return causes
