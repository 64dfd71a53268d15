"""What a pod's spec must have, and may not have, to be run at all.

Guarantees that what the node reads without asking (names, ports, mounts) is there, and the words of
the real server for what people get wrong most: a mount of no volume, `1Gb`, a probe that probes
nothing. Does not know every rule of the real one.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from kaos.local.apiserver.errors import (
    Cause,
    field_invalid,
    field_required,
    field_unsupported,
)

Object = dict[str, Any]

_is_quantity = re.compile(
    r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?"
).fullmatch
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_POLICIES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
}
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def validate_pod_spec(spec: Object, at: str, claims: Iterable[str] = ()) -> list[Cause]:
    """What is wrong with a pod's spec.

    Args:
        spec: The spec.
        at: Where it lies in its object.
        claims: The volumes that a StatefulSet adds to it.

    Raises:
        ValueError: A quantity cannot be read.
    """
    causes = [
        field_unsupported(f"{at}.{field}", spec[field], allowed)
        for field, allowed in _POLICIES.items()
        if spec.get(field) not in (None, *allowed)
    ]
    volumes = spec.get("volumes") or ()
    causes += _validate_names(volumes, f"{at}.volumes")
    if not spec.get("containers"):
        causes.append(field_required(f"{at}.containers"))
    known = {*claims, *(volume.get("name") for volume in volumes)}
    for group in ("initContainers", "containers"):
        containers = spec.get(group) or ()
        causes += _validate_names(containers, f"{at}.{group}")
        for index, container in enumerate(containers):
            causes += _validate_container(container, f"{at}.{group}[{index}]", known)
    return causes


def _validate_names(items: Iterable[Object], at: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        name = item.get("name")
        if not name:
            yield field_required(f"{at}[{index}].name")
        elif name in seen:
            yield Cause(f"{at}[{index}].name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        seen.add(name or "")


def _validate_container(container: Object, at: str, volumes: set[Any]) -> Iterator[Cause]:
    if not container.get("image"):
        yield field_required(f"{at}.image")
    if (policy := container.get("imagePullPolicy")) not in (None, *_PULL_POLICIES):
        yield field_unsupported(f"{at}.imagePullPolicy", policy, _PULL_POLICIES)
    for index, port in enumerate(container.get("ports") or ()):
        field = f"{at}.ports[{index}].containerPort"
        number = port.get("containerPort")
        if not number:
            yield field_required(field)
        elif not 1 <= number <= 65535:
            yield field_invalid(field, number, "must be between 1 and 65535, inclusive")
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield field_required(f"{at}.env[{index}].name")
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        yield from _validate_mount(mount, f"{at}.volumeMounts[{index}]", volumes)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        body = container.get(probe)
        if body is not None and all(body.get(handler) is None for handler in _HANDLERS):
            yield field_required(f"{at}.{probe}", "must specify a handler type")
    resources = container.get("resources") or {}
    for amounts in (resources.get("limits"), resources.get("requests")):
        for name, amount in (amounts or {}).items():
            if not _is_quantity(str(amount)):
                raise ValueError(
                    f"unable to parse quantity's suffix: {at}.resources: {name}: {amount}"
                )


def _validate_mount(mount: Object, at: str, volumes: set[Any]) -> Iterator[Cause]:
    name = mount.get("name")
    if not name:
        yield field_required(f"{at}.name")
    elif name not in volumes:
        yield Cause(f"{at}.name", "FieldValueNotFound", f'Not found: "{name}"')
    if not mount.get("mountPath"):
        yield field_required(f"{at}.mountPath")
