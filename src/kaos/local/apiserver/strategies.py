"""What the real server does to a built-in object on its way in: defaults, rules, status.

Guarantees, per kind, the defaults that clients rely on, the fields that may not
change, and a status that only the status subresource writes. Does not validate
everything: a manifest that passes here may still be refused by a real cluster.
"""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from kaos.local.apiserver.definitions import (
    DEFINITIONS,
    accepted_status,
    default_definition,
    validate_definition,
)
from kaos.local.apiserver.errors import (
    Cause,
    bad_request,
    field_forbidden,
    field_immutable,
    field_invalid,
    field_required,
    field_too_long,
    field_unsupported,
)
from kaos.local.apiserver.poddefaults import default_pod_spec, fill
from kaos.local.apiserver.podrules import validate_pod_spec
from kaos.local.apiserver.registry import Kind
from kaos.local.apiserver.services import ServiceAddresses, default_service, validate_service

Object = dict[str, Any]
Old = dict[str, Any] | None
Defaults = Callable[[Object, Old], None]
Rules = Callable[[Object, Old], list[Cause]]

# The status of a new object; kinds that are not listed start with an empty one.
# A node brings its own status along, as the kubelet registers it with one.
_FIRST_STATUS: dict[str, Object] = {
    "pods": {"phase": "Pending"},
    "services": {"loadBalancer": {}},
    "namespaces": {"phase": "Active"},
    "persistentvolumeclaims": {"phase": "Pending"},
    "persistentvolumes": {"phase": "Pending"},
    "statefulsets.apps": {"replicas": 0, "availableReplicas": 0},
    "poddisruptionbudgets.policy": {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
}
_DATA_SIZE = 1024 * 1024
_is_key = re.compile(r"[-._a-zA-Z0-9]{1,253}").fullmatch
_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name', "
    " or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_STRATEGIES = ("Recreate", "RollingUpdate")
_is_percent = re.compile(r"[0-9]+%").fullmatch
_PERCENT_TEXT = (
    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or"
    " '93%', regex used for validation is '[0-9]+%')"
)
_POD_FROZEN = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions"
    " to existing tolerations),`spec.terminationGracePeriodSeconds`"
)
_PODS_MAY_CHANGE = ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations")


class Strategies:
    """The rules of the built-in kinds."""

    def __init__(self, addresses: ServiceAddresses) -> None:
        self._defaults: dict[str, Defaults] = {
            "namespaces": _default_namespace,
            "pods": _default_pod,
            "services": lambda obj, old: default_service(obj, old, addresses),
            "secrets": _default_secret,
            "deployments.apps": _default_deployment,
            "replicasets.apps": _default_workload,
            "statefulsets.apps": _default_stateful_set,
            "daemonsets.apps": _default_daemon_set,
            "horizontalpodautoscalers.autoscaling": _default_autoscaler,
            "endpointslices.discovery.k8s.io": _default_endpoint_slice,
            "networkpolicies.networking.k8s.io": _default_network_policy,
            DEFINITIONS: default_definition,
            "persistentvolumeclaims": lambda obj, _: fill(_spec(obj), volumeMode="Filesystem"),
        }
        self._rules: dict[str, Rules] = {
            "pods": _validate_pod,
            "services": validate_service,
            "configmaps": _validate_config_map,
            "secrets": _validate_secret,
            DEFINITIONS: validate_definition,
            "deployments.apps": _validate_deployment,
            **dict.fromkeys(
                ("replicasets.apps", "statefulsets.apps", "daemonsets.apps"), _validate_workload
            ),
        }

    def prepare(self, kind: Kind, obj: Object, old: Old) -> None:
        """Default an object about to be written and put its status where it belongs.

        Raises:
            StatusError: 400, the object is not of the shape of its kind.
        """
        if kind.has_status:
            _keep_status(kind, obj, old)
        if defaults := self._defaults.get(kind.resource):
            with _shape(kind):
                defaults(obj, old)

    def validate(self, kind: Kind, obj: Object, old: Old) -> list[Cause]:
        """What is wrong with an object about to be written."""
        rules = self._rules.get(kind.resource)
        with _shape(kind):
            return rules(obj, old) if rules else []

    def finish(self, kind: Kind, obj: Object, now: str) -> None:
        """Add what can only be said of an object that is valid."""
        if kind.resource == DEFINITIONS:
            obj["status"] = accepted_status(obj, now)


class _shape:  # noqa: N801 - reads as a statement
    """Turns a stumble over a field of the wrong type into the client's error that it is."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, AttributeError | KeyError | TypeError | ValueError):
            raise bad_request(
                f'{self._kind.kind} in version "{self._kind.version}" cannot be handled as a'
                f" {self._kind.kind}: a field is of the wrong type ({error})"
            ) from error


def _spec(obj: Object) -> Object:
    if obj.get("spec") is None:
        obj["spec"] = {}
    spec: Object = obj["spec"]
    return spec


def _keep_status(kind: Kind, obj: Object, old: Old) -> None:
    if old is not None:
        obj.pop("status", None)
        if "status" in old:
            obj["status"] = old["status"]
    elif kind.crd:
        obj.pop("status", None)
    elif kind.resource != "nodes":
        obj["status"] = dict(_FIRST_STATUS.get(kind.resource, {}))


def _default_namespace(obj: Object, old: Old) -> None:
    metadata = obj["metadata"]
    name = metadata.get("name", "")
    fill(metadata, labels={})
    metadata["labels"]["kubernetes.io/metadata.name"] = name
    obj["spec"] = old["spec"] if old else {"finalizers": ["kubernetes"]}


def _default_pod(obj: Object, old: Old) -> None:
    spec = _spec(obj)
    fill(spec, enableServiceLinks=True)
    default_pod_spec(spec, requests=True)
    if old is None:
        obj["status"]["qosClass"] = _qos(spec)


def _qos(spec: Object) -> str:
    resources = [c.get("resources") or {} for c in spec.get("containers") or ()]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    whole = all(
        (r.get("limits") or {}).keys() >= {"cpu", "memory"} and r.get("requests") == r["limits"]
        for r in resources
    )
    return "Guaranteed" if whole else "Burstable"


def _default_secret(obj: Object, _: Old) -> None:
    fill(obj, type="Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        fill(obj, data={})
        for name, value in plain.items():
            obj["data"][name] = base64.b64encode(value.encode()).decode()


def _default_workload(obj: Object, _: Old) -> None:
    spec = _spec(obj)
    if obj["kind"] != "DaemonSet":
        fill(spec, replicas=1)
    template = spec.get("template")
    if template is not None:
        fill(template, metadata={}, spec={})
        default_pod_spec(template["spec"])


def _default_deployment(obj: Object, old: Old) -> None:
    _default_workload(obj, old)
    spec = obj["spec"]
    fill(spec, strategy={}, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    fill(spec["strategy"], type="RollingUpdate")
    if spec["strategy"]["type"] == "RollingUpdate":
        fill(spec["strategy"], rollingUpdate={})
        fill(spec["strategy"]["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")


def _default_stateful_set(obj: Object, old: Old) -> None:
    _default_workload(obj, old)
    fill(
        obj["spec"],
        podManagementPolicy="OrderedReady",
        revisionHistoryLimit=10,
        updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"},
    )


def _default_daemon_set(obj: Object, old: Old) -> None:
    _default_workload(obj, old)
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    fill(obj["spec"], revisionHistoryLimit=10, updateStrategy=rolling)


def _default_network_policy(obj: Object, _: Old) -> None:
    spec = _spec(obj)
    fill(spec, podSelector={})
    fill(spec, policyTypes=["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            fill(port, protocol="TCP")


def _default_autoscaler(obj: Object, _: Old) -> None:
    target = {"type": "Utilization", "averageUtilization": 80}
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    fill(_spec(obj), minReplicas=1, metrics=[cpu])


def _default_endpoint_slice(obj: Object, _: Old) -> None:
    for port in obj.get("ports") or ():
        fill(port, name="", protocol="TCP")


def _validate_pod(obj: Object, old: Old) -> list[Cause]:
    spec = obj["spec"]
    causes = validate_pod_spec(spec, "spec")
    if old is None:
        return causes
    before = old["spec"]
    # No scheduler runs here, so that a pod may be bound by writing its nodeName.
    bound = {} if before.get("nodeName") else {"nodeName": spec.get("nodeName")}
    if _frozen_part(spec) != _frozen_part({**before, **bound}):
        causes.append(field_forbidden("spec", _POD_FROZEN))
    return causes


def _frozen_part(spec: Object) -> Object:
    frozen = {
        name: value
        for name, value in spec.items()
        if name not in _PODS_MAY_CHANGE and value is not None
    }
    for group in ("initContainers", "containers"):
        frozen[group] = [
            {name: value for name, value in container.items() if name not in {"image", "resources"}}
            for container in spec.get(group) or ()
        ]
    return frozen


def _validate_workload(obj: Object, old: Old) -> list[Cause]:
    spec = obj["spec"]
    causes = []
    replicas = spec.get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        text = "must be greater than or equal to 0"
        causes.append(field_invalid("spec.replicas", replicas, text))
    selector = spec.get("selector")
    if not selector:
        causes.append(field_required("spec.selector"))
    template = spec.get("template") or {"metadata": {}, "spec": {}}
    labels = template["metadata"].get("labels")
    wanted = (selector or {}).get("matchLabels") or {}
    if not selector or any((labels or {}).get(name) != value for name, value in wanted.items()):
        text = "`selector` does not match template `labels`"
        causes.append(field_invalid("spec.template.metadata.labels", labels, text))
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates") or ()]
    causes += validate_pod_spec(template["spec"], "spec.template.spec", claims)
    policy = template["spec"].get("restartPolicy", "Always")
    if policy != "Always":
        field = "spec.template.spec.restartPolicy"
        causes.append(field_unsupported(field, policy, ["Always"]))
    if old is not None and selector != old["spec"].get("selector"):
        causes.append(field_immutable("spec.selector", selector))
    return causes


def _validate_deployment(obj: Object, old: Old) -> list[Cause]:
    causes = _validate_workload(obj, old)
    strategy = obj["spec"]["strategy"]
    if strategy["type"] not in _STRATEGIES:
        causes.append(field_unsupported("spec.strategy.type", strategy["type"], _STRATEGIES))
    for name in ("maxUnavailable", "maxSurge"):
        value = (strategy.get("rollingUpdate") or {}).get(name)
        at = f"spec.strategy.rollingUpdate.{name}"
        if isinstance(value, int):
            if value < 0:
                causes.append(field_invalid(at, value, "must be greater than or equal to 0"))
        elif value is not None and not _is_percent(str(value)):
            causes.append(field_invalid(at, value, _PERCENT_TEXT))
    return causes


def _validate_immutable_data(obj: Object, old: Old) -> list[Cause]:
    if old is None or not old.get("immutable"):
        return []
    causes = []
    if not obj.get("immutable"):
        text = "field is immutable when `immutable` is set"
        causes.append(field_forbidden("immutable", text))
    causes += [
        field_forbidden(field, "field is immutable when `immutable` is set")
        for field in ("data", "binaryData")
        if (obj.get(field) or {}) != (old.get(field) or {})
    ]
    return causes


def _validate_keys(obj: Object, field: str) -> list[Cause]:
    return [
        field_invalid(f"{field}[{key}]", key, _KEY_TEXT)
        for key in obj.get(field) or {}
        if not _is_key(key) or key == "." or key.startswith("..")
    ]


def _validate_config_map(obj: Object, old: Old) -> list[Cause]:
    causes = _validate_immutable_data(obj, old)
    causes += _validate_keys(obj, "data") + _validate_keys(obj, "binaryData")
    size = sum(len(text.encode()) for text in (obj.get("data") or {}).values())
    size += sum(len(text) * 3 // 4 for text in (obj.get("binaryData") or {}).values())
    if size > _DATA_SIZE:
        causes.append(field_too_long("[]", _DATA_SIZE))
    return causes


def _validate_secret(obj: Object, old: Old) -> list[Cause]:
    causes = _validate_immutable_data(obj, old) + _validate_keys(obj, "data")
    size = 0
    if old is not None and obj["type"] != old["type"]:
        causes.append(field_immutable("type", obj["type"]))
    for name, value in (obj.get("data") or {}).items():
        try:
            size += len(base64.b64decode(value or "", validate=True))
        except (binascii.Error, TypeError) as error:
            # The value is not repeated: it may be a secret all the same.
            raise bad_request(
                f'Secret in version "v1" cannot be handled as a Secret: data[{name}] is not base64'
            ) from error
    if size > _DATA_SIZE:
        causes.append(field_too_long("data", _DATA_SIZE))
    return causes
