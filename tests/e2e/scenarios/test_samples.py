"""The user's two manifests, byte for byte, by the commands of the user's README."""

import json
import time
import urllib.request
from functools import partial
from typing import Any

import pytest

from tests.e2e.scenarios.client import ask, client, patiently
from tests.e2e.scenarios.targets import ROOT, Target, eventually

SAMPLES = ROOT / "manifests" / "samples"
COMPAT = ROOT.parent / "shared" / "compat"
QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": "Hello!"}]}


@pytest.mark.parametrize("name", ["simple-agent.yaml", "multi-agent-gateway.yaml"])
def test_the_samples_are_the_users_manifests(name: str) -> None:
    if not COMPAT.is_dir():
        pytest.skip("the user's folder is not here")
    assert (SAMPLES / name).read_bytes() == (COMPAT / name).read_bytes()


def test_simple_agent(target: Target) -> None:
    sample = str(SAMPLES / "simple-agent.yaml")
    try:
        target.kubectl("apply", "-f", sample)
        wait = ("wait", "--for=condition=ready", "pod", "-l", "app=assistant", "--timeout=120s")
        # kubectl gives up at once when there is no pod yet, and a script is faster than a hand.
        eventually("the pod", lambda: target.kubectl(*wait, check=False), 130)
        with target.port_forward("svc/assistant", 80, "default") as url:
            request = urllib.request.Request(
                f"{url}/v1/chat/completions",
                data=json.dumps(QUESTION).encode(),
                headers={"Content-Type": "application/json"},
            )

            def asked(timeout: float) -> Any:
                with urllib.request.urlopen(request, timeout=timeout) as response:
                    return json.load(response)

            completion = patiently(asked)
        assert completion["object"] == "chat.completion"
        assert completion["choices"][0]["message"]["content"].strip()
        assert completion["usage"]["completion_tokens"] > 0
        target.wait_ready("agent", "assistant", "default")
    finally:
        target.kubectl("delete", "-f", sample, "--timeout=60s")


def test_multi_agent_gateway(target: Target) -> None:
    sample = str(SAMPLES / "multi-agent-gateway.yaml")
    try:
        target.kubectl("apply", "-f", sample)
        for name in ("coordinator", "researcher", "analyst"):
            target.wait_ready("agent", name, "default")
        for path in ("coordinator", "default/agent/coordinator"):
            url = f"{target.gateway}/{path}"
            eventually(f"{path} through the gateway", partial(_routed, url))
            assert patiently(partial(_asked, url)).strip()
        pieces = patiently(partial(_pieces, f"{target.gateway}/coordinator"))
        assert "".join(pieces).strip()
        assert len([piece for piece in pieces if piece]) > 1, "it did not come in pieces"
    finally:
        target.kubectl("delete", "-f", sample, "--timeout=60s")


def _asked(url: str, timeout: float) -> str:
    return ask(url, "Hello!", timeout=timeout)


def _pieces(url: str, timeout: float) -> list[str]:
    """A stream that is read for a while; whatever follows then may be endless."""
    end = time.monotonic() + timeout
    pieces = []
    with client(url).chat.completions.create(
        model="coordinator", messages=[{"role": "user", "content": "Hello!"}], stream=True
    ) as stream:
        for chunk in stream:
            pieces += [choice.delta.content or "" for choice in chunk.choices]
            if time.monotonic() > end:
                break
    return pieces


def _routed(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
