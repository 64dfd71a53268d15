"""Defaults of a pod's spec, as the real server fills them in.

Guarantees what clients rely on being there after a write (restartPolicy,
imagePullPolicy, a port's protocol, the probes' numbers), so that a controller
which compares what it wants with what it reads finds no difference on a real
cluster that it would not find here.
"""

from typing import Any

_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_NUMBERS = {
    "timeoutSeconds": 1,
    "periodSeconds": 10,
    "successThreshold": 1,
    "failureThreshold": 3,
}


def fill(target: dict[str, Any], **defaults: Any) -> None:
    """Set what is absent or null."""
    for name, value in defaults.items():
        if target.get(name) is None:
            target[name] = value


def default_pod_spec(spec: dict[str, Any], *, requests: bool = False) -> None:
    """Fill in a pod's spec; ``requests`` copies limits to requests, as for pods themselves."""
    fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if spec.get("serviceAccountName"):
        fill(spec, serviceAccount=spec["serviceAccountName"])
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        _default_container(container, requests=requests)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: dict[str, Any], *, requests: bool) -> None:
    fill(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy=_pull_policy(container.get("image") or ""),
    )
    for port in container.get("ports") or ():
        fill(port, protocol="TCP")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference:
            fill(reference, apiVersion="v1")
    for name in _PROBES:
        if probe := container.get(name):
            fill(probe, **_PROBE_NUMBERS)
            _default_handler(probe)
    for handler in (container.get("lifecycle") or {}).values():
        _default_handler(handler)
    limits = container["resources"].get("limits")
    if requests and limits:
        fill(container["resources"], requests={})
        fill(container["resources"]["requests"], **limits)


def _default_handler(handler: dict[str, Any]) -> None:
    if get := handler.get("httpGet"):
        fill(get, path="/", scheme="HTTP")
    if grpc := handler.get("grpc"):
        fill(grpc, service="")


def _pull_policy(image: str) -> str:
    name = image.rpartition("/")[2]
    tag = "" if "@" in name else name.partition(":")[2] or "latest"
    return "Always" if tag == "latest" else "IfNotPresent"


def _default_volume(volume: dict[str, Any]) -> None:
    if volume.keys() <= {"name"}:
        volume["emptyDir"] = {}
    for source in ("configMap", "secret", "projected", "downwardAPI"):
        if volume.get(source) is not None:
            fill(volume[source], defaultMode=420)
