"""The Deployment and Service that every resource has: one way to build each.

Pure: a resource and what was decided about it in, plain dicts out. Pods meet the `restricted`
Pod Security level (not root, read-only root, no capabilities, no service account token unless one
is named) as long as the user's own `podSpec` does not take that away.

What a user says wins, the more special the more: `config.env` over what is generated, `container`
over both, `podSpec` over everything.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kaos.api import CustomResource, EnvVar, KeySource, Workload
from kaos.reconcilers.children.names import HTTP_PORT, child_name, labels, selector
from kaos.reconcilers.children.patch import merged

Manifest = dict[str, Any]

USER = 65532
GRACE_SECONDS = 35  # after the drain; above the grace of kaos.telemetry.serving
SMALL = {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}}


def metadata(resource: CustomResource, name: str = "") -> Manifest:
    """The metadata of a child: named and labelled by the contract."""
    return {
        "name": name or child_name(resource),
        "namespace": resource.namespace,
        "labels": labels(resource),
    }


def literal(value: str) -> str:
    """A text that a pod shall read as it is: Kubernetes would expand $(NAME) in it."""
    return value.replace("$", "$$")


def variables(
    generated: Sequence[tuple[str, str]],
    user: Sequence[EnvVar],
    sources: Mapping[str, KeySource] | None = None,
) -> list[Manifest]:
    """Generated variables, then the user's; where a name is given twice, the user's is kept.

    Args:
        generated: names and values.
        user: what the user sets.
        sources: generated variables whose value is read from a key, instead of a value.
    """
    sources = sources or {}
    taken = {variable.name for variable in user}
    kept: list[Manifest] = [
        {"name": name, "value": value}
        for name, value in generated
        if name not in taken and name not in sources
    ]
    kept += [
        {"name": name, "valueFrom": source.manifest()}
        for name, source in sources.items()
        if name not in taken
    ]
    return kept + [variable.manifest() for variable in user]


def http_probes(port: str | int = "http") -> Manifest:
    """Probes of a server of ours: it may take a minute to start, then it must keep answering."""

    def probe(path: str, period: int, failures: int) -> Manifest:
        return {
            "httpGet": {"path": path, "port": port},
            "periodSeconds": period,
            "timeoutSeconds": 5,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": probe("/healthz", 1, 60),
        "readinessProbe": probe("/readyz", 2, 3),
        "livenessProbe": probe("/healthz", 10, 3),
    }


def tcp_probes() -> Manifest:
    """Probes of a server of somebody else's: all that is asked is that it takes connections."""
    probes = http_probes()
    for probe in probes.values():
        del probe["httpGet"]
        probe["tcpSocket"] = {"port": "http"}
    return probes


def container(
    name: str,
    image: str,
    args: Sequence[str],
    *,
    env: list[Manifest],
    command: Sequence[str] = (),
    ports: Sequence[tuple[str, int]] = (("http", HTTP_PORT),),
    probes: Manifest | None = None,
    resources: Manifest | None = None,
    mounts: Sequence[tuple[str, str]] = (),
    drain: int = 0,
) -> Manifest:
    """A container that may write nowhere but in its mounts.

    Args:
        name: its name.
        image: its image.
        args: its arguments.
        env: its variables.
        command: instead of the image's own.
        ports: names and numbers.
        probes: those of a server of ours when absent.
        resources: what it asks of the node; little when absent.
        mounts: names of volumes and where they are mounted.
        drain: seconds before it is told to end, for a program that does not drain by itself: until
            then requests still come, and it would refuse them.
    """
    manifest: Manifest = {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(args),
        "env": env,
        "resources": resources or SMALL,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **(probes if probes is not None else http_probes()),
    }
    if command:
        manifest["command"] = list(command)
    if ports:
        manifest["ports"] = [
            {"name": port_name, "containerPort": number, "protocol": "TCP"}
            for port_name, number in ports
        ]
    if drain:
        manifest["lifecycle"] = {"preStop": {"sleep": {"seconds": drain}}}
    if mounts:
        manifest["volumeMounts"] = [{"name": n, "mountPath": path} for n, path in mounts]
    return manifest


def deployment(
    resource: Workload,
    containers: Sequence[Manifest],
    *,
    drain: int,
    volumes: Sequence[Manifest] = (),
    recreate: bool = False,
    annotations: dict[str, str] | None = None,
    pod_labels: Mapping[str, str] | None = None,
    account: str | None = None,
) -> Manifest:
    """The Deployment of a resource; how many pods it shall have is `scaling`'s to say.

    Args:
        resource: the owner.
        containers: the pod's containers, the main one first.
        drain: seconds for which they go on when they are told to end.
        volumes: the pod's volumes.
        recreate: stop the old pod before the new one starts (two may not share its volume).
        annotations: of the pod; a hash of configuration here makes a change of it roll.
        pod_labels: of the pod, besides those of every child.
        account: the service account of the pods, unless the user names one.

    Raises:
        PatchError: the user's `podSpec` does not fit.
    """
    template: Manifest = {
        "metadata": {"labels": {**labels(resource), **(pod_labels or {})}},
        "spec": pod_spec(resource, containers, volumes, drain, account),
    }
    if annotations:
        template["metadata"]["annotations"] = annotations
    strategy: Manifest = (
        {"type": "Recreate"}
        if recreate
        else {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(resource),
        "spec": {
            "revisionHistoryLimit": 3,
            "selector": {"matchLabels": selector(resource)},
            "strategy": strategy,
            "template": template,
        },
    }


def pod_spec(
    resource: Workload,
    containers: Sequence[Manifest],
    volumes: Sequence[Manifest],
    drain: int,
    account: str | None = None,
) -> Manifest:
    """The pod's spec: what KAOS wants of every pod, then the user's `container` and `podSpec`."""
    spec = resource.spec
    main, *others = containers
    pod: Manifest = {
        "containers": [overridden(main, resource), *others],
        "automountServiceAccountToken": spec.service_account_name is not None,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain + GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        # Always, though it means nothing to a single pod: a template that changed with the number
        # of pods would make `kubectl scale` replace them all.
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(resource)},
            }
        ],
    }
    if account := spec.service_account_name or account:
        pod["serviceAccountName"] = account
    if volumes:
        pod["volumes"] = list(volumes)
    return pod if spec.pod_spec is None else merged(pod, spec.pod_spec)


def overridden(main: Manifest, resource: Workload) -> Manifest:
    """The main container as the user's `container` wants it; its resources it has already."""
    wish = resource.spec.container
    result = dict(main)
    if wish.image is not None:
        result["image"] = wish.image
    if wish.command is not None:
        result["command"] = list(wish.command)
        result["args"] = []
    if wish.args is not None:
        result["args"] = list(wish.args)
    if wish.env:
        own = {variable.name for variable in wish.env}
        kept = [variable for variable in main["env"] if variable["name"] not in own]
        result["env"] = kept + [variable.manifest() for variable in wish.env]
    return result


def service(
    resource: CustomResource, ports: Sequence[tuple[str, int]], *, target: str = "http"
) -> Manifest:
    """The Service of a resource: each (name, port) leads to the container port named `target`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(resource),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(resource),
            "ports": [
                {"name": name, "port": port, "targetPort": target, "protocol": "TCP"}
                for name, port in ports
            ],
        },
    }


def claim(resource: CustomResource, name: str, size: object) -> Manifest:
    """A claim for a volume that outlives pods, of one pod at a time."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(resource, name),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(size)}},
        },
    }


def empty_volume(name: str) -> Manifest:
    """A folder that lives as long as its pod."""
    return {"name": name, "emptyDir": {}}
