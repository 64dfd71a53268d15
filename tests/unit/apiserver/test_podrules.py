"""A pod that could not be run is refused, with the place and the word of the real server."""

from typing import Any

import pytest

from kaos.local.apiserver.errors import StatusError
from tests.unit.apiserver.support import World


def deployment(spec: dict[str, Any], **fields: Any) -> dict[str, Any]:
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    spec = {"selector": {"matchLabels": labels}, "template": template, **fields}
    return {"metadata": {"name": "x"}, "spec": spec}


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "c", "image": "x", **fields}


def refused(spec: dict[str, Any]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        World().create("apps/v1", "Deployment", deployment(spec))
    return caught.value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"env": [{"value": "b"}]}, "env[0].name: Required value"),
        ({"ports": [{"name": "http"}]}, "ports[0].containerPort: Required value"),
        (
            {"ports": [{"containerPort": 99999}]},
            "ports[0].containerPort: Invalid value: 99999: must",
        ),
        ({"volumeMounts": [{"mountPath": "/x"}]}, "volumeMounts[0].name: Required value"),
        (
            {"volumeMounts": [{"name": "nope", "mountPath": "/x"}]},
            'volumeMounts[0].name: Not found: "nope"',
        ),
        ({"volumeMounts": [{"name": "v"}]}, "volumeMounts[0].mountPath: Required value"),
        ({"readinessProbe": {"periodSeconds": 1}}, "readinessProbe: Required value: must specify"),
        ({"imagePullPolicy": "always"}, 'imagePullPolicy: Unsupported value: "always"'),
    ],
)
def test_a_container_that_the_node_could_not_start(fields: dict[str, Any], message: str) -> None:
    error = refused({"containers": [container(**fields)], "volumes": [{"name": "v"}]})
    assert error.code == 422
    assert f"spec.template.spec.containers[0].{message}" in error.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"volumes": [{"emptyDir": {}}]}, "volumes[0].name: Required value"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, 'volumes[1].name: Duplicate value: "v"'),
        ({"dnsPolicy": "Foo"}, 'dnsPolicy: Unsupported value: "Foo"'),
    ],
)
def test_a_pod_that_the_node_could_not_set_up(fields: dict[str, Any], message: str) -> None:
    error = refused({"containers": [container()], **fields})
    assert f"spec.template.spec.{message}" in error.message


def test_a_null_is_a_field_that_is_not_there() -> None:
    nulls = {"initContainers": None, "volumes": None, "dnsPolicy": None, "nodeSelector": None}
    spec = {"containers": [container(env=None, ports=None, livenessProbe=None)], **nulls}
    made = World().create("apps/v1", "Deployment", deployment(spec, replicas=None))
    found = made["spec"]["template"]["spec"]
    assert found.keys().isdisjoint({"initContainers", "volumes", "nodeSelector"})
    assert found["containers"][0].keys().isdisjoint({"env", "ports", "livenessProbe"})
    assert (found["dnsPolicy"], made["spec"]["replicas"]) == ("ClusterFirst", 1)


@pytest.mark.parametrize("amount", ["1Gb", "x", "1 Gi", "Gi", "1e", ""])
def test_a_quantity_that_is_none_is_the_clients_error(amount: str) -> None:
    error = refused({"containers": [container(resources={"limits": {"memory": amount}})]})
    assert error.code == 400
    assert "unable to parse quantity's suffix" in error.message


@pytest.mark.parametrize("amount", ["1Gi", "500m", "2", "0.5", ".5", "1e3", "12E6", "1k", 2, 0.5])
def test_quantities(amount: Any) -> None:
    spec = {"containers": [container(resources={"requests": {"cpu": amount}})]}
    World().create("apps/v1", "Deployment", deployment(spec))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"type": "Rolling"}, 'type: Unsupported value: "Rolling": supported values: "Recreate"'),
        ({"rollingUpdate": {"maxSurge": "abc"}}, 'rollingUpdate.maxSurge: Invalid value: "abc": a'),
        ({"rollingUpdate": {"maxSurge": -1}}, "rollingUpdate.maxSurge: Invalid value: -1: must be"),
    ],
)
def test_a_strategy_that_nobody_could_follow(strategy: dict[str, Any], message: str) -> None:
    body = deployment({"containers": [container()]}, strategy=strategy)
    with pytest.raises(StatusError) as caught:
        World().create("apps/v1", "Deployment", body)
    assert f"spec.strategy.{message}" in caught.value.message


def test_the_claims_of_a_stateful_set_are_volumes() -> None:
    spec = {"containers": [container(volumeMounts=[{"name": "data", "mountPath": "/data"}])]}
    claims = [{"metadata": {"name": "data"}, "spec": {}}]
    body = deployment(spec, volumeClaimTemplates=claims, serviceName="x")
    World().create("apps/v1", "StatefulSet", body)
