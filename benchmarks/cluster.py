"""KAOS on a real cluster: how long users wait, and what the controller costs at rest.

Needs what `nox -s e2e -- --cluster current` needs: a kubeconfig, the images loaded, a Gateway.
Prints one row a figure. Nothing is asserted: a figure is only worth what its machine was doing.
"""

import json
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.scenarios.client import ask, patiently
from tests.e2e.scenarios.manifests import (
    Manifest,
    agent,
    as_list,
    echo_server,
    proxy,
    scripted_model,
)
from tests.e2e.scenarios.targets import IMAGE, ROOT, SYSTEM, Current, eventually

NAMESPACE = "kaos-bench"
REST_SECONDS = 60
ROUNDS = 200

# Runs in a pod, so that no port-forward is measured: median milliseconds of each conversation.
ASKER = """
import json, statistics, sys, time, urllib.request
def median(url, text, rounds):
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": "scripted", "messages": messages}).encode()
    url += "/v1/chat/completions"
    times = []
    for n in range(rounds + 20):
        start = time.perf_counter()
        with urllib.request.urlopen(urllib.request.Request(url, body)) as response:
            response.read()
        if n >= 20:
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)
rounds = int(sys.argv[1])
print(json.dumps({
    "model": median("http://modelapi-model:8000", "plain", rounds),
    "agent": median("http://worker", "plain", rounds),
    "tool": median("http://worker", "use the tool", rounds),
    "delegation": median("http://boss", "hand it on", rounds),
}))
"""


def main() -> None:
    """Measure, and print."""
    target = Current()
    with target.running():
        rows = [("container start to Ready, s", _start_to_ready(target))]
        rows += _latencies(target)
        rows += [("apply to first answer of simple-agent, s", _first_answer(target))]
        rows += _at_rest(target)
    for name, value in rows:
        print(f"{name:55} {value:8.2f}")


@contextmanager
def _namespace(target: Current) -> Iterator[None]:
    target.kubectl("create", "namespace", NAMESPACE)
    try:
        yield
    finally:
        target.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


def _apply(target: Current, *manifests: Manifest) -> None:
    target.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=as_list(*manifests))


def _first_answer(target: Current) -> float:
    sample = str(ROOT / "manifests" / "samples" / "simple-agent.yaml")
    begin = time.monotonic()
    target.kubectl("apply", "-f", sample)
    try:
        target.wait_ready("agent", "assistant", "default")
        with target.port_forward("svc/assistant", 80, "default") as url:
            patiently(lambda timeout: ask(url, "Hello!", timeout=timeout))
        return time.monotonic() - begin
    finally:
        target.kubectl("delete", "-f", sample, "--timeout=60s")


def _start_to_ready(target: Current) -> float:
    """An agent whose model answers already: from the running container to the ready pod."""
    with _namespace(target):
        _model(target)
        times = []
        for n in range(5):
            _apply(target, agent(f"starter-{n}"))
            selector = f"app=starter-{n}"

            def pod(selector: str = selector) -> dict[str, Any]:
                out = target.kubectl("get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "json")
                items = json.loads(out)["items"]
                return dict(items[0]["status"]) if items else {}

            def running() -> bool:
                return any("running" in c["state"] for c in pod().get("containerStatuses", ()))

            def ready() -> bool:
                conditions = pod().get("conditions", ())
                return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

            eventually("a running container", running, every=0.02)
            begin = time.monotonic()
            eventually("a ready pod", ready, every=0.02)
            times.append(time.monotonic() - begin)
        return statistics.median(times)


def _model(target: Current) -> None:
    call = {"tool_calls": [{"name": "echo", "arguments": {"message": "hi"}}]}
    hand_on = {"tool_calls": [{"name": "delegate_to_worker", "arguments": {"task": "plain"}}]}
    script: list[Manifest] = [
        {"when": "use the tool", "by": "step", "turns": [call, {"text": "done"}]},
        {"when": "hand it on", "by": "step", "turns": [hand_on, {"text": "done"}]},
        {"turns": [{"text": "plain"}], "repeat": True},
    ]
    _apply(target, *scripted_model("scripted", *script), proxy("model", "scripted"), echo_server())
    target.wait_ready("modelapi", "model", NAMESPACE)
    target.wait_ready("mcpserver", "echo-tools", NAMESPACE)


def _latencies(target: Current) -> list[tuple[str, float]]:
    with _namespace(target):
        _model(target)
        worker = agent("worker", mcpServers=["echo-tools"])
        _apply(target, worker, agent("boss", agentNetwork={"access": ["worker"]}))
        for name in ("worker", "boss"):
            target.wait_ready("agent", name, NAMESPACE)
        used = ("modelapi.{}/model", "agent.{}/worker", "agent.{}/boss")
        labels = ",".join(f"{name.format('uses.kaos.tools')}={NAMESPACE}" for name in used)
        pod = (f"--image={IMAGE}", "--restart=Never", f"--labels={labels}")
        run = ("run", "asker", "-n", NAMESPACE, *pod)
        command = ("--command", "--", "python", "-c", ASKER, str(ROUNDS))
        target.kubectl(*run, "--image-pull-policy=IfNotPresent", *command)
        done = "--for=jsonpath={.status.phase}=Succeeded"
        target.kubectl("wait", done, "pod/asker", "-n", NAMESPACE, "--timeout=300s", timeout=330)
        seen = json.loads(target.kubectl("logs", "asker", "-n", NAMESPACE))
    return [
        ("one call of the ModelAPI, p50 ms", seen["model"]),
        ("the same through an agent, p50 ms", seen["agent"]),
        (
            "tool round (tool call without its second model call)",
            seen["tool"] - seen["agent"] - seen["model"],
        ),
        (
            "delegation hop (without its model calls)",
            seen["delegation"] - 2 * seen["model"] - seen["agent"],
        ),
    ]


def _at_rest(target: Current) -> list[tuple[str, float]]:
    time.sleep(20)  # what was deleted has gone
    with target.port_forward("deployment/kaos-controller", 8081, SYSTEM) as url:
        before = _metrics(url)
        time.sleep(REST_SECONDS)
        after = _metrics(url)

    def grown(*words: str) -> float:
        names = [name for name in after if all(word in name for word in words)]
        return sum(after[name] - before.get(name, 0) for name in names)

    writes = sum(
        grown("rest_client_requests_total", f'method="{method}"')
        for method in ("POST", "PATCH", "DELETE", "PUT")
    )
    lease = grown("rest_client_requests_total", 'method="PUT"')
    minute = 60 / REST_SECONDS
    return [
        ("controller at rest: resident MB", after["process_resident_memory_bytes"] / 1e6),
        (
            "controller at rest: CPU, % of a core",
            grown("process_cpu_seconds_total") * 100 / REST_SECONDS,
        ),
        ("controller at rest: writes a minute, its lease aside", (writes - lease) * minute),
        ("controller at rest: renewals of its lease a minute", lease * minute),
    ]


def _metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


if __name__ == "__main__":
    main()
