"""A URL of a spec is one that can be called, or is refused where it stands."""

from typing import Any

import pytest

from kaos.api import Agent, InvalidSpecError, MCPServer, ModelAPI, checked_url


@pytest.mark.parametrize(
    "url",
    [
        "http://ok:80/v1",
        "https://up.test.?x=[1]",
        "http://[::1]:8080/mcp",
        "http://my_vllm/v1",
        "redis://:p%40ss@redis-0.redis.data.svc.cluster.local:6379/0",
    ],
)
def test_a_url_that_can_be_called_is_left_as_it_is(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://collector:99999", "its port must be a number from 1 to 65535"),
        ("http://vllm:port/v1", "its port must be"),
        ("http://vllm:0/v1", "its port must be"),
        ("http://[::1", "its brackets are not closed"),
        ("http://[x]/", "no IPv6 address"),
        ("http://[fe80::1%25eth0]/", "an address with a zone"),
        ("http:///v1", "it names no host"),
        ("redis://", "it names no host"),
        ("http://a..b/", "no name that DNS can know"),
        (f"http://{'a' * 64}/", "no name that DNS can know"),
        ("http://a b/", "a space, a backslash"),
        ("http://a\\@b/", "a space, a backslash"),
        ("http://a\n/", "a space, a backslash"),
        ("http://ü/", "not ASCII"),
    ],
)
def test_a_url_by_which_nothing_can_be_reached_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        checked_url(url)


BAD = "http://vllm:port/v1"
PROXY = {"mode": "Proxy", "proxyConfig": {"models": ["m"], "apiBase": BAD}}
REDIS = {"type": "redis", "url": "redis://:hunter2@r:99999"}


@pytest.mark.parametrize(
    ("model", "spec", "field"),
    [
        (Agent, {"modelAPI": "x", "config": {"telemetry": {"endpoint": BAD}}}, "telemetry.endp"),
        (Agent, {"modelAPI": "x", "config": {"memory": REDIS}}, "config.memory.url"),
        (ModelAPI, PROXY, "proxyConfig.apiBase"),
        (MCPServer, {"type": "remote", "url": BAD}, "spec.url"),
    ],
)
def test_every_url_of_a_spec_is_checked(model: Any, spec: dict[str, Any], field: str) -> None:
    """The patterns let them pass, the controller failed at them, and no status said so."""
    body = {"kind": model.KIND, "metadata": {"name": "x"}, "spec": spec}
    with pytest.raises(InvalidSpecError, match=f"{field}.*: not a URL: its port") as caught:
        model.parse(body)
    assert "hunter2" not in str(caught.value)
