"""The columns of the built-in kinds, as kubectl's users know them.

Guarantees the column names and cells of the real server for the kinds that a KAOS
cluster has; a built-in kind without an entry here shows NAME and AGE.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kaos.local.apiserver.table_cells import (
    NONE,
    UNKNOWN,
    Cell,
    Column,
    Obj,
    age_column,
    at,
    condition,
    container_columns,
    items,
    labels,
    mapping,
    name_column,
    number,
    path_column,
    selector,
    shortened,
    since,
    text,
)
from kaos.local.apiserver.table_pods import POD_COLUMNS

Columns = tuple[Column, ...]


def _text(name: str, *path: str, wide: bool = False, default: str = NONE) -> Column:
    return Column(name, lambda obj, _: text(obj, *path, default=default), priority=1 if wide else 0)


def _count(name: str, *path: str, default: int = 0) -> Column:
    return Column(name, lambda obj, _: number(obj, *path, default=default), "integer")


def _path(name: str, path: str, kind: str = "string") -> Column:
    return path_column({"name": name, "jsonPath": path, "type": kind})


def _selector(*path: str) -> Column:
    return Column("Selector", lambda obj, _: selector(at(obj, *path)), priority=1)


def _table(*columns: Column, wide: Columns = ()) -> Columns:
    return (name_column(), *columns, age_column(), *wide)


def _ready_of(total: tuple[str, ...], default: int = 1) -> Column:
    def cell(obj: Obj, _: datetime) -> str:
        return f"{number(obj, 'status', 'readyReplicas')}/{number(obj, *total, default=default)}"

    return Column("Ready", cell)


_WORKLOAD = (*container_columns(), _selector("spec", "selector"))


# Services and who is behind them


def _external_ip(service: Obj, _: datetime) -> str:
    fixed = [str(ip) for ip in items(service, "spec", "externalIPs")]
    match at(service, "spec", "type"):
        case "ExternalName":
            return text(service, "spec", "externalName")
        case "LoadBalancer":
            ingress = items(service, "status", "loadBalancer", "ingress")
            given = [text(i, "ip", default=text(i, "hostname", default="")) for i in ingress]
            return ",".join([ip for ip in given if ip] + fixed) or "<pending>"
        case _:
            return ",".join(fixed) or NONE


def _service_ports(service: Obj, _: datetime) -> str:
    def ports() -> Iterator[str]:
        for port in items(service, "spec", "ports"):
            node = f":{at(port, 'nodePort')}" if at(port, "nodePort") else ""
            yield f"{at(port, 'port')}{node}/{text(port, 'protocol', default='TCP')}"

    return ",".join(ports()) or NONE


def _endpoints(obj: Obj, _: datetime) -> str:
    return shortened(
        f"{at(address, 'ip')}:{at(port, 'port')}" if port else str(at(address, "ip"))
        for subset in items(obj, "subsets")
        for address in items(subset, "addresses")
        for port in items(subset, "ports") or [None]
    )


def _slice_ports(obj: Obj, _: datetime) -> str:
    ports = [text(port, "port", default="*") for port in items(obj, "ports")]
    return shortened(ports) if ports else "<unset>"


def _slice_endpoints(obj: Obj, _: datetime) -> str:
    endpoints = items(obj, "endpoints")
    addresses = [str(a) for e in endpoints for a in items(e, "addresses")]
    return shortened(addresses) if addresses else "<unset>"


# Nodes and storage


def _node_status(node: Obj, _: datetime) -> str:
    ready = condition(node, "Ready").get("status")
    word = "Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"
    return f"{word},SchedulingDisabled" if at(node, "spec", "unschedulable") else word


def _node_roles(node: Obj, _: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    names = mapping(node, "metadata", "labels")
    roles = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    return ",".join(sorted(role for role in roles if role)) or NONE


def _node_address(kind: str) -> Cell:
    def cell(node: Obj, _: datetime) -> str:
        found = (a for a in items(node, "status", "addresses") if at(a, "type") == kind)
        return text(next(found, None), "address")

    return cell


_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _access_modes(claim: Obj, _: datetime) -> str:
    given = items(claim, "status", "accessModes") if at(claim, "spec", "volumeName") else []
    return ",".join(_MODES.get(str(mode), str(mode)) for mode in given)


def _claim_status(claim: Obj, _: datetime) -> str:
    if at(claim, "metadata", "deletionTimestamp"):
        return "Terminating"
    return text(claim, "status", "phase", default="")


# The rest


def _data(*fields: str) -> Column:
    return Column("Data", lambda obj, _: sum(len(mapping(obj, f)) for f in fields), "integer")


def _event_fields(core: str, new: str) -> Cell:
    return lambda event, _: text(event, core, default=text(event, new, default=""))


def _event_time(*fields: str) -> Cell:
    def cell(event: Obj, now: datetime) -> str:
        found = (at(event, *field.split(".")) for field in (*fields, "eventTime"))
        return since(next((value for value in found if value), None), now)

    return cell


def _event_object(event: Obj, _: datetime) -> str:
    thing = mapping(event, "involvedObject") or mapping(event, "regarding")
    return f"{text(thing, 'kind', default='').lower()}/{text(thing, 'name', default='')}"


def _event_count(event: Obj, _: datetime) -> int:
    counts = (("series", "count"), ("count",), ("deprecatedCount",))
    return next((n for path in counts if (n := number(event, *path))), 1)


def _event_source(event: Obj, _: datetime) -> str:
    source = mapping(event, "source") or mapping(event, "deprecatedSource")
    by = text(event, "reportingComponent", default=text(event, "reportingController", default=""))
    parts = (text(source, "component", default=by), text(source, "host", default=""))
    return ", ".join(part for part in parts if part)


def _event_subobject(event: Obj, _: datetime) -> str:
    thing = mapping(event, "involvedObject") or mapping(event, "regarding")
    return text(thing, "fieldPath", default="")


_LAST = ("series.lastObservedTime", "lastTimestamp", "deprecatedLastTimestamp")
_EVENT = (
    Column("Last Seen", _event_time(*_LAST)),
    _text("Type", "type", default=""),
    _text("Reason", "reason", default=""),
    Column("Object", _event_object),
    Column("Subobject", _event_subobject, priority=1),
    Column("Source", _event_source, priority=1),
    Column("Message", _event_fields("message", "note")),
    Column("First Seen", _event_time("firstTimestamp", "deprecatedFirstTimestamp"), priority=1),
    Column("Count", _event_count, "integer", priority=1),
    Column("Name", lambda e, _: text(e, "metadata", "name", default=""), priority=1, format="name"),
)


def _hpa_targets(hpa: Obj, _: datetime) -> str:
    current = {_metric(m): m for m in items(hpa, "status", "currentMetrics")}
    parts = []
    for metric in items(hpa, "spec", "metrics"):
        name = _metric(metric)
        body, now = (mapping(m, _camel(metric)) for m in (metric, current.get(name)))
        target = mapping(body, "target")
        if at(target, "averageUtilization") is not None:
            want, field, sign = at(target, "averageUtilization"), "averageUtilization", "%"
        else:
            field = "averageValue" if at(target, "averageValue") is not None else "value"
            want, sign = text(target, field, default=UNKNOWN), ""
        got = at(now, "current", field)
        parts.append(f"{name}: {UNKNOWN if got is None else f'{got}{sign}'}/{want}{sign}")
    return shortened(parts, 2)


def _camel(metric: Any) -> str:
    kind = text(metric, "type", default="")
    return kind[:1].lower() + kind[1:]


def _metric(metric: Any) -> str:
    body = mapping(metric, _camel(metric))
    return text(body, "name", default=text(body, "metric", "name", default=""))


def _reference(hpa: Obj, _: datetime) -> str:
    target = at(hpa, "spec", "scaleTargetRef")
    return f"{text(target, 'kind')}/{text(target, 'name')}"


def _job_status(job: Obj, _: datetime) -> str:
    ends = ("Complete", "Failed", "Suspended")
    met = (kind for kind in ends if condition(job, kind).get("status") == "True")
    return next(met, "Running")


_CREATED = (name_column(), _path("Created At", ".metadata.creationTimestamp"))
_ROLE_REF = Column(
    "Role", lambda o, _: f"{text(o, 'roleRef', 'kind')}/{text(o, 'roleRef', 'name')}"
)

BUILTIN_COLUMNS: dict[tuple[str, str], Columns] = {
    ("", "pods"): POD_COLUMNS,
    ("", "namespaces"): _table(_text("Status", "status", "phase", default="")),
    ("", "configmaps"): _table(_data("data", "binaryData")),
    ("", "secrets"): _table(_text("Type", "type", default=""), _data("data")),
    ("", "serviceaccounts"): _table(
        Column("Secrets", lambda o, _: len(items(o, "secrets")), "integer")
    ),
    ("", "services"): _table(
        _text("Type", "spec", "type", default="ClusterIP"),
        _text("Cluster-IP", "spec", "clusterIP"),
        Column("External-IP", _external_ip),
        Column("Port(s)", _service_ports),
        wide=(Column("Selector", lambda o, _: labels(mapping(o, "spec", "selector")), priority=1),),
    ),
    ("", "endpoints"): _table(Column("Endpoints", _endpoints)),
    ("", "events"): _EVENT,
    ("events.k8s.io", "events"): _EVENT,
    ("", "nodes"): (
        name_column(),
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        age_column(),
        _text("Version", "status", "nodeInfo", "kubeletVersion", default=""),
        Column("Internal-IP", _node_address("InternalIP"), priority=1),
        Column("External-IP", _node_address("ExternalIP"), priority=1),
        _text("OS-Image", "status", "nodeInfo", "osImage", wide=True, default=UNKNOWN),
        _text("Kernel-Version", "status", "nodeInfo", "kernelVersion", wide=True, default=UNKNOWN),
        _text(
            "Container-Runtime",
            *("status", "nodeInfo", "containerRuntimeVersion"),
            wide=True,
            default=UNKNOWN,
        ),
    ),
    ("", "persistentvolumeclaims"): _table(
        Column("Status", _claim_status),
        _text("Volume", "spec", "volumeName", default=""),
        _text("Capacity", "status", "capacity", "storage", default=""),
        Column("Access Modes", _access_modes),
        _text("StorageClass", "spec", "storageClassName", default=""),
        wide=(_text("VolumeMode", "spec", "volumeMode", wide=True),),
    ),
    ("apps", "deployments"): _table(
        _ready_of(("spec", "replicas")),
        _count("Up-to-date", "status", "updatedReplicas"),
        _count("Available", "status", "availableReplicas"),
        wide=_WORKLOAD,
    ),
    ("apps", "replicasets"): _table(
        _count("Desired", "spec", "replicas", default=1),
        _count("Current", "status", "replicas"),
        _count("Ready", "status", "readyReplicas"),
        wide=_WORKLOAD,
    ),
    ("apps", "statefulsets"): _table(_ready_of(("spec", "replicas")), wide=_WORKLOAD[:2]),
    ("apps", "daemonsets"): _table(
        _count("Desired", "status", "desiredNumberScheduled"),
        _count("Current", "status", "currentNumberScheduled"),
        _count("Ready", "status", "numberReady"),
        _count("Up-to-date", "status", "updatedNumberScheduled"),
        _count("Available", "status", "numberAvailable"),
        wide=_WORKLOAD,
    ),
    ("batch", "jobs"): _table(
        Column("Status", _job_status),
        Column(
            "Completions",
            lambda o, _: f"{number(o, 'status', 'succeeded')}/{text(o, 'spec', 'completions')}",
        ),
        wide=_WORKLOAD,
    ),
    ("discovery.k8s.io", "endpointslices"): _table(
        _text("AddressType", "addressType", default=""),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
    ),
    ("coordination.k8s.io", "leases"): _table(
        _text("Holder", "spec", "holderIdentity", default="")
    ),
    ("autoscaling", "horizontalpodautoscalers"): _table(
        Column("Reference", _reference),
        Column("Targets", _hpa_targets),
        _text("MinPods", "spec", "minReplicas", default="<unset>"),
        _count("MaxPods", "spec", "maxReplicas"),
        _count("Replicas", "status", "currentReplicas"),
    ),
    ("policy", "poddisruptionbudgets"): _table(
        _text("Min Available", "spec", "minAvailable", default="N/A"),
        _text("Max Unavailable", "spec", "maxUnavailable", default="N/A"),
        _count("Allowed Disruptions", "status", "disruptionsAllowed"),
    ),
    ("networking.k8s.io", "networkpolicies"): _table(
        Column("Pod-Selector", lambda o, _: selector(at(o, "spec", "podSelector")))
    ),
    ("networking.k8s.io", "ingresses"): _table(
        _text("Class", "spec", "ingressClassName"),
        Column(
            "Hosts",
            lambda o, _: shortened(text(r, "host", default="*") for r in items(o, "spec", "rules")),
        ),
    ),
    ("rbac.authorization.k8s.io", "roles"): _CREATED,
    ("rbac.authorization.k8s.io", "clusterroles"): _CREATED,
    ("rbac.authorization.k8s.io", "rolebindings"): _table(_ROLE_REF),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _table(_ROLE_REF),
    ("apiextensions.k8s.io", "customresourcedefinitions"): _CREATED,
    ("gateway.networking.k8s.io", "gatewayclasses"): _table(
        _path("Controller", ".spec.controllerName"),
        _path("Accepted", '.status.conditions[?(@.type=="Accepted")].status'),
    ),
    ("gateway.networking.k8s.io", "gateways"): _table(
        _path("Class", ".spec.gatewayClassName"),
        _path("Address", ".status.addresses[*].value"),
        _path("Programmed", '.status.conditions[?(@.type=="Programmed")].status'),
    ),
    ("gateway.networking.k8s.io", "httproutes"): _table(_path("Hostnames", ".spec.hostnames")),
}
