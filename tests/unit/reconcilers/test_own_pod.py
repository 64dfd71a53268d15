"""What the controller takes from the pod that it is in."""

import os
from inspect import signature
from pathlib import Path

import pytest
import yaml

from kaos.reconcilers import Settings
from kaos.reconcilers.__main__ import as_own_pod
from kaos.runtime import Client, ClusterConfig, Manager

PROXY = {"name": "istio-proxy", "image": "istio/proxyv2:1.27"}
OURS = {"name": "controller", "image": "corp/kaos:1"}


@pytest.fixture(autouse=True)
def pod_name(monkeypatch: pytest.MonkeyPatch, kaos_api: ClusterConfig) -> None:
    own = {"NAME": "me", "NAMESPACE": kaos_api.namespace, "IPS": "10.0.0.7,fd00::7"}
    for name, value in own.items():
        monkeypatch.setenv(f"KAOS_POD_{name}", value)
    monkeypatch.delenv("KAOS_IMAGE", raising=False)


async def own(client: Client, *containers: dict[str, str]) -> Settings:
    labels = {"app.kubernetes.io/name": "kaos-controller", "pod-template-hash": "5d4"}
    metadata = {"name": "me", "namespace": os.environ["KAOS_POD_NAMESPACE"], "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    await client.create({**pod, "spec": {"containers": list(containers)}})
    return await as_own_pod(Settings(), client)


async def test_children_do_not_get_the_image_of_a_meshs_proxy(kaos_client: Client) -> None:
    """A proxy that is to be up before the controller is put before it, too."""
    assert (await own(kaos_client, PROXY, OURS)).image == "corp/kaos:1"


async def test_a_container_of_another_name_will_do(kaos_client: Client) -> None:
    found = await own(kaos_client, {**OURS, "name": "operator"})
    assert found.image == "corp/kaos:1"
    assert found.own_labels == {"app.kubernetes.io/name": "kaos-controller"}


async def test_addresses_are_known_before_the_pods_status_has_them(kaos_client: Client) -> None:
    """A controller that read its status too early wrote policies without IPv6."""
    assert (await own(kaos_client, OURS)).ipv6


def test_the_kubelet_does_not_kill_a_controller_that_still_has_time_to_end() -> None:
    """Both had 30 s: a write was cut off, and the lease was kept from the next leader."""
    path = Path(__file__).parents[3] / "manifests" / "controller.yaml"
    grace = yaml.safe_load(path.read_text())["spec"]["template"]["spec"][
        "terminationGracePeriodSeconds"
    ]
    assert grace > signature(Manager).parameters["graceful_timeout"].default
