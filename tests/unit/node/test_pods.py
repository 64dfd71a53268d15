"""Pods on a whole small cluster: real processes, the embedded API server."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from kaos.local.node import Node, PortTaken, pods
from kaos.local.node.orphans import ProcessRecords, identity
from kaos.local.node.volumes import Volumes
from kaos.runtime import CONFIG_MAP, EVENT, ClusterConfig, Object
from tests.unit.node.harness import (
    POD,
    Cluster,
    cluster,
    container,
    eventually,
    logs,
    main_status,
    pod,
    process_of,
    ready,
    server_container,
    service,
    waiting,
)

pytestmark = pytest.mark.process

SLEEP = "import time; print('up', flush=True); time.sleep(60)"


async def until_up(small: Cluster, name: str) -> Object:
    """Wait for a program to say that it runs: without a probe, ready only means started."""
    found = await small.until(POD, name, ready)

    async def says_up() -> bool:
        return "up" in await logs(small, name)

    await eventually(says_up)
    return found


async def test_a_pod_runs_becomes_ready_and_answers_on_its_port(small: Cluster) -> None:
    await small.client.create(pod("web", server_container()))
    await small.until(POD, "web", ready)
    reader, writer = await small.node.open_port("default", "web", 8000)
    writer.write(b"GET /x HTTP/1.0\r\n\r\n")
    assert b"hello /x" in await reader.read()
    writer.close()
    await writer.wait_closed()
    assert "listening" in await logs(small, "web", tail_lines=100)
    with pytest.raises(LookupError, match="does not declare port 9"):
        await small.node.open_port("default", "web", 9)
    with pytest.raises(LookupError, match=r"container \"x\" is not one of \[main\]"):
        await logs(small, "web", "x")


async def test_deleting_a_pod_stops_it_gently_and_removes_all_of_it(small: Cluster) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        "def end(*a): print('bye', flush=True); time.sleep(0.2); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(60)"
    )
    await small.client.create(pod("web", container(code)))
    running = await until_up(small, "web")
    follow = asyncio.create_task(logs(small, "web", follow=True))
    await asyncio.sleep(0.1)
    await small.client.delete(POD, "web", "default")
    assert (await small.pod("web")).deleting
    await small.until_gone(POD, "web")
    assert await follow == "up\nbye\n"
    assert not identity(process_of(running))
    assert list((small.folder / "pods").iterdir()) == []
    assert list((small.folder / "logs").iterdir()) == []
    assert list((small.folder / "processes").iterdir()) == []


async def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(small: Cluster) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN);" + SLEEP
    await small.client.create(pod("web", container(code), terminationGracePeriodSeconds=1))
    running = await until_up(small, "web")
    begun = asyncio.get_running_loop().time()
    await small.client.delete(POD, "web", "default")
    await small.until_gone(POD, "web")
    assert 0.9 < asyncio.get_running_loop().time() - begun < 3
    assert not identity(process_of(running))


async def test_a_crash_is_told_restarted_and_backed_off(small: Cluster) -> None:
    code = "import sys; print('no model', file=sys.stderr); sys.exit(3)"
    spec = container(code, terminationMessagePolicy="FallbackToLogsOnError")
    await small.client.create(pod("web", spec))
    found = await small.until(POD, "web", lambda p: waiting(p).get("reason") == "CrashLoopBackOff")
    status = main_status(found)
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["lastState"]["terminated"]["message"] == "no model"
    assert "back-off" in waiting(found)["message"]
    assert found.status["phase"] == "Running"
    assert "no model" in await logs(small, "web", previous=True)


async def test_the_previous_log_in_a_crash_loop_is_that_of_the_latest_crash(small: Cluster) -> None:
    code = "import os; print(os.getpid(), flush=True); os._exit(3)"
    await small.client.create(pod("app", container(code)))
    found = await small.until(POD, "app", lambda p: waiting(p).get("reason") == "CrashLoopBackOff")
    latest = main_status(found)["lastState"]["terminated"]["containerID"]
    assert (await logs(small, "app", previous=True)).strip() == latest.removeprefix("process://")


async def test_a_log_that_is_not_there_says_what_its_container_waits_for(small: Cluster) -> None:
    await small.client.create(pod("app", {**container(SLEEP), "image": "nginx"}))
    await small.until(POD, "app", lambda p: waiting(p).get("reason") == "ImageNotRunnable")
    with pytest.raises(LookupError, match=r"main.* is waiting to start: ImageNotRunnable: .*nginx"):
        await logs(small, "app")


async def test_a_container_that_the_node_fails_at_leaves_no_second_process_of_its_neighbour(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "_RETRY_SECONDS", 0.1)
    add = ProcessRecords.add
    failed: list[int] = []

    def full(records: ProcessRecords, pid: int, owner: str) -> None:
        if owner.endswith("/other") and not failed:
            failed.append(pid)
            raise OSError(28, "No space left on device")
        add(records, pid, owner)

    monkeypatch.setattr(ProcessRecords, "add", full)
    started = small.folder.parent / "started"
    code = f"import os; open({str(started)!r}, 'a').write(f'{{os.getpid()}} '); {SLEEP}"
    other = {**container(f"import time; time.sleep(0.5); {SLEEP}"), "name": "other"}
    await small.client.create(pod("web", container(code), other))
    found = await small.until(POD, "web", ready)
    assert failed
    again = process_of(found)
    alive = {int(pid) for pid in started.read_text().split() if identity(int(pid))}
    assert alive <= {again}


async def test_a_pod_that_the_node_fails_at_says_so(small: Cluster) -> None:
    volumes = [{"name": "v", "persistentVolumeClaim": {}}]
    await small.client.create(pod("web", container(SLEEP), volumes=volumes))

    async def told() -> bool:
        events = await small.client.list(EVENT, "default")
        notes = [e.get("note", "") for e in events if e.get("reason") == "FailedSync"]
        return any("KeyError('claimName')" in note for note in notes)

    await eventually(told)


async def test_kill_9_of_a_container_is_seen_and_repaired(small: Cluster) -> None:
    await small.client.create(pod("web", server_container()))
    first = await small.until(POD, "web", ready)
    os.kill(process_of(first), signal.SIGKILL)
    again = await small.until(
        POD, "web", lambda p: ready(p) and main_status(p)["restartCount"] == 1
    )
    ended = main_status(again)["lastState"]["terminated"]
    assert (ended["exitCode"], ended["signal"], ended["reason"]) == (137, 9, "Error")
    assert process_of(again) != process_of(first)


async def test_a_failed_liveness_probe_restarts_the_container(small: Cluster) -> None:
    marker = small.folder.parent / "sick"
    check = f"import os, sys; sys.exit(os.path.exists({str(marker)!r}))"
    probe = {
        "exec": {"command": ["python", "-c", check]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    await small.client.create(pod("web", container(SLEEP, livenessProbe=probe)))
    await small.until(POD, "web", ready)
    marker.touch()
    found = await small.until(POD, "web", lambda p: main_status(p)["restartCount"] == 1)
    assert main_status(found)["lastState"]["terminated"]["exitCode"] == 143
    marker.unlink()


async def test_an_image_that_cannot_run_here_says_so_and_what_to_do(small: Cluster) -> None:
    spec = {"name": "main", "image": "nginx:1.27"}
    await small.client.create(pod("web", spec))
    found = await small.until(POD, "web", lambda p: waiting(p).get("reason") == "ImageNotRunnable")
    assert found.status["phase"] == "Pending"
    for words in ('"nginx:1.27"', "KAOS_IMAGE=nginx:1.27", "Use a real cluster"):
        assert words in waiting(found)["message"]
    await small.client.delete(POD, "web", "default")
    await small.until_gone(POD, "web")


async def test_a_program_that_does_not_exist_is_a_start_error(small: Cluster) -> None:
    await small.client.create(pod("web", {**container(), "command": ["no-such-program"]}))
    found = await small.until(POD, "web", lambda p: main_status(p).get("restartCount", 0) > 0)
    ended = main_status(found)["lastState"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("StartError", 128)
    assert "no-such-program" in ended["message"]


async def test_init_containers_run_in_order_and_a_failed_one_fails_a_never_pod(
    small: Cluster,
) -> None:
    first = {**container("print('1')"), "name": "first"}
    second = {**container("raise SystemExit(4)"), "name": "second"}
    spec = {"initContainers": [first, second], "restartPolicy": "Never"}
    await small.client.create(pod("web", container(SLEEP), **spec))
    found = await small.until(POD, "web", lambda p: p.status.get("phase") == "Failed")
    assert main_status(found, "first")["state"]["terminated"]["exitCode"] == 0
    assert main_status(found, "second")["state"]["terminated"]["exitCode"] == 4
    assert waiting(found)["reason"] == "PodInitializing"


async def test_a_sidecar_starts_first_and_ends_last(small: Cluster) -> None:
    sidecar = {**server_container(), "name": "side", "restartPolicy": "Always"}
    main = container("print('work')")
    spec = {"initContainers": [sidecar], "restartPolicy": "Never"}
    await small.client.create(pod("web", main, **spec))
    found = await small.until(POD, "web", lambda p: p.status.get("phase") == "Succeeded")
    side, work = (main_status(found, name)["state"]["terminated"] for name in ("side", "main"))
    assert side["startedAt"] <= work["startedAt"]
    assert side["reason"] == "Error"  # ended by SIGTERM, after its work was over


async def test_a_pod_made_again_under_its_name_is_another_pod(small: Cluster) -> None:
    await small.client.create(pod("web", container(SLEEP)))
    first = await small.until(POD, "web", ready)
    await small.client.delete(POD, "web", "default")
    await small.until_gone(POD, "web")
    await small.client.create(pod("web", container(SLEEP)))
    second = await small.until(POD, "web", ready)
    assert second.uid != first.uid
    assert main_status(second)["restartCount"] == 0
    assert not identity(process_of(first))


async def test_a_node_whose_gateway_port_is_taken_says_so_and_ends(
    small: Cluster, tmp_path: Path
) -> None:
    config = ClusterConfig.direct(small.url)
    node = Node(config, tmp_path / "other", gateway_port=small.node.gateway.port)
    with pytest.raises(PortTaken, match="choose another one with --port"):
        await node.run()


async def test_the_next_cluster_process_goes_on_with_the_pods_of_the_last(tmp_path: Path) -> None:
    database = tmp_path / "state.db"
    service_map = tmp_path / "node" / "services.json"
    async with cluster(tmp_path / "node", database=database) as first:
        await first.client.create(service("web"))
        await first.client.create(pod("web", server_container()))
        before = await first.until(POD, "web", ready)
        await first.client.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "kept", "namespace": "default"},
            }
        )
    assert not identity(process_of(before))
    addresses = service_map.read_text()
    assert "web.default" in addresses
    async with cluster(tmp_path / "node", database=database) as second:
        # Whoever asks as soon as the node has started must not read what the last one wrote.
        found = await second.pod("web")
        assert main_status(found)["restartCount"] == 1 or not ready(found)
        after = await second.until(
            POD, "web", lambda p: ready(p) and main_status(p)["restartCount"] == 1
        )
        assert after.uid == before.uid
        assert after.metadata.annotations == before.metadata.annotations  # the same host ports
        assert main_status(after)["lastState"]["terminated"]["reason"] == "Unknown"
        assert service_map.read_text() == addresses
        assert (await second.client.get(CONFIG_MAP, "kept", "default")).name == "kept"


async def test_a_deletion_that_the_last_cluster_process_did_not_finish_is_finished(
    tmp_path: Path,
) -> None:
    database = tmp_path / "state.db"
    code = "import signal; signal.signal(15, signal.SIG_IGN);" + SLEEP
    async with cluster(tmp_path / "node", database=database) as first:
        await first.client.create(pod("web", container(code), terminationGracePeriodSeconds=60))
        running = await until_up(first, "web")
        await first.client.delete(POD, "web", "default")
        await first.until(POD, "web", lambda p: p.deleting)
    assert not identity(process_of(running))
    async with cluster(tmp_path / "node", database=database) as second:
        await second.until_gone(POD, "web")
        assert list((second.folder / "pods").iterdir()) == []


async def test_a_pod_that_the_node_fails_at_is_tried_again_and_harms_no_other(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await small.client.create(pod("other", container(SLEEP)))
    other = await small.until(POD, "other", ready)
    good, failed = Volumes.set_up, 0

    def bad(self: Volumes, *args: Any) -> dict[str, Path]:
        nonlocal failed
        failed += 1
        if failed == 1:
            raise RuntimeError("a mistake of ours")
        return good(self, *args)

    monkeypatch.setattr(Volumes, "set_up", bad)
    monkeypatch.setattr(pods, "_RETRY_SECONDS", 0.05)
    await small.client.create(pod("web", container(SLEEP)))
    await small.until(POD, "web", ready)
    assert failed == 2
    assert identity(process_of(other))


async def test_a_hook_before_the_stop_runs_first_and_a_failed_one_is_an_event(
    small: Cluster,
) -> None:
    marker = small.folder.parent / "drained"
    hook = {"exec": {"command": ["python", "-c", f"open({str(marker)!r}, 'w').close()"]}}
    code = (
        "import os, signal, sys, time\n"
        f"signal.signal(15, lambda *a: print('saw', os.path.exists({str(marker)!r}), flush=True)"
        " or sys.exit(0))\nprint('up', flush=True)\ntime.sleep(60)"
    )
    spec = container(code, lifecycle={"preStop": hook})
    await small.client.create(pod("web", spec, terminationGracePeriodSeconds=10))
    await until_up(small, "web")
    follow = asyncio.create_task(logs(small, "web", follow=True))
    bad = {"httpGet": {"path": "/", "port": 1}}
    await small.client.create(pod("bad", container(SLEEP, lifecycle={"preStop": bad})))
    await until_up(small, "bad")
    for name in ("web", "bad"):
        await small.client.delete(POD, name, "default")
        await small.until_gone(POD, name)
    assert await follow == "up\nsaw True\n"

    async def told() -> bool:
        events = await small.client.list(EVENT, "default")
        return any(e.get("reason") == "FailedPreStopHook" for e in events)

    await eventually(told)
