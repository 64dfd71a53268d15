"""What pods get from ConfigMaps, Secrets and volumes, on a whole small cluster."""

import base64
from typing import Any

import pytest

from kaos.runtime import PERSISTENT_VOLUME_CLAIM
from tests.unit.node.harness import (
    POD,
    Cluster,
    container,
    eventually,
    logs,
    main_status,
    pod,
    process_of,
    ready,
    waiting,
)

pytestmark = pytest.mark.process


async def test_variables_from_config_maps_and_secrets_arrive_when_they_exist(
    small: Cluster,
) -> None:
    code = "import os; print(os.environ['COLOR'], os.environ['KEY'], os.environ['ME'], flush=True)"
    env = [
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "color"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    await small.client.create(pod("web", container(code, env=env), restartPolicy="Never"))
    found = await small.until(
        POD, "web", lambda p: waiting(p).get("reason") == "CreateContainerConfigError"
    )
    assert waiting(found)["message"] == "ConfigMap default/c not found"
    meta = {"namespace": "default"}
    key = base64.b64encode(b"hush").decode()
    for body in (
        {"kind": "ConfigMap", "metadata": {"name": "c", **meta}, "data": {"color": "blue"}},
        {"kind": "Secret", "metadata": {"name": "s", **meta}, "data": {"key": key}},
    ):
        await small.client.create({"apiVersion": "v1", **body})
    await small.until(POD, "web", lambda p: p.status.get("phase") == "Succeeded")
    assert await logs(small, "web") == "blue hush web\n"


async def test_volumes_hold_files_are_shared_and_go_with_the_pod(small: Cluster) -> None:
    await small.client.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "c", "namespace": "default"},
            "data": {"a.txt": "content"},
        }
    )
    volumes = [{"name": "conf", "configMap": {"name": "c"}}, {"name": "data", "emptyDir": {}}]
    mounts = [{"name": "conf", "mountPath": "/etc/conf"}, {"name": "data", "mountPath": "/data"}]
    write = "import sys, shutil; shutil.copy(*sys.argv[1:])"
    read = "import sys; print(open(sys.argv[1]).read())"
    init = {
        **container(write, args=["/etc/conf/a.txt", "/data/b.txt"], volumeMounts=mounts),
        "name": "copy",
    }
    main = container(read, args=["/data/b.txt"], volumeMounts=mounts)
    spec = {"initContainers": [init], "volumes": volumes, "restartPolicy": "Never"}
    await small.client.create(pod("web", main, **spec))
    found = await small.until(POD, "web", lambda p: p.status.get("phase") == "Succeeded")
    assert await logs(small, "web") == "content\n"
    assert main_status(found, "copy")["state"]["terminated"]["reason"] == "Completed"


async def test_a_running_pod_gets_the_news_of_its_secret_in_its_files(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kaos.local.node.podworker._VOLUME_REFRESH", 0.05)

    def secret(value: str) -> dict[str, Any]:
        meta = {"name": "s", "namespace": "default"}
        data = {"key": base64.b64encode(value.encode()).decode()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}

    await small.client.apply(secret("old"))
    read = "import sys, time\nwhile open(sys.argv[1]).read() != 'new': time.sleep(0.02)"
    mounts = [{"name": "s", "mountPath": "/etc/s"}]
    main = container(read, args=["/etc/s/key"], volumeMounts=mounts)
    volumes = [{"name": "s", "projected": {"sources": [{"secret": {"name": "s"}}]}}]
    await small.client.create(pod("web", main, volumes=volumes, restartPolicy="Never"))
    started = await small.until(POD, "web", ready)
    await small.client.apply(secret("new"))
    ended = await small.until(POD, "web", lambda p: p.status.get("phase") == "Succeeded")
    assert process_of(ended) == process_of(started)


async def test_a_missing_volume_keeps_the_pod_waiting_and_says_which(small: Cluster) -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "models"}}]
    mounts = [{"name": "data", "mountPath": "/data"}]
    code = "import sys; open(sys.argv[1], 'a').write('x'); print(open(sys.argv[1]).read())"
    main = container(code, args=["/data/file"], volumeMounts=mounts)
    body = pod("web", main, volumes=volumes, restartPolicy="Never")
    await small.client.create(body)
    found = await small.until(POD, "web", lambda p: "models" in waiting(p).get("message", ""))
    assert waiting(found)["reason"] == "ContainerCreating"
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models", "namespace": "default"},
        "spec": {"resources": {"requests": {"storage": "2Gi"}}, "accessModes": ["ReadWriteOnce"]},
    }
    await small.client.create(claim)
    bound = await small.until(
        PERSISTENT_VOLUME_CLAIM, "models", lambda c: c.status.get("phase") == "Bound"
    )
    assert bound.status["capacity"] == {"storage": "2Gi"}
    await small.until(POD, "web", lambda p: p.status.get("phase") == "Succeeded")
    await small.client.delete(POD, "web", "default")
    await small.until_gone(POD, "web")
    await small.client.create(body)
    await small.until(POD, "web", lambda p: p.status.get("phase") == "Succeeded")
    assert await logs(small, "web") == "xx\n"  # the claim outlives the pod
    await small.client.delete(POD, "web", "default")
    await small.client.delete(PERSISTENT_VOLUME_CLAIM, "models", "default")
    folder = small.folder / "volumes" / "default" / "models"

    async def removed() -> bool:
        return not folder.exists()

    await eventually(removed)
