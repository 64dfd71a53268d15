"""The routes of a pod's streams: what is refused, with which words, and what ends when."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient, WebSocketDenialResponse

from kaos.local.apiserver import streams
from kaos.local.apiserver.errors import StatusError

POD: dict[str, Any] = {"metadata": {"name": "web"}, "spec": {"containers": [{"name": "main"}]}}
TWO: dict[str, Any] = {
    "metadata": {"name": "two"},
    "spec": {
        "containers": [{"name": "a"}, {"name": "b"}],
        "initContainers": [{"name": "i"}],
        "ephemeralContainers": [{"name": "e"}],
    },
}
PODS = {"web": POD, "two": TWO}
BASE = "/api/v1/namespaces/default/pods"


class Node:
    """Remembers what was asked for; its logs are ``chunks``, then ``error``."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] = ()
        self.chunks = [b"one\n", b"two\n"]
        self.error: LookupError | None = None
        self.wait = asyncio.Event()
        self.wait.set()
        self.closed = False

    async def open_port(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        raise LookupError(f"pod {namespace}/{pod} declares no port {port}")

    async def read_logs(
        self, namespace: str, pod: str, container: str, **options: Any
    ) -> AsyncIterator[bytes]:
        self.asked = (namespace, pod, container, options)
        try:
            for chunk in self.chunks:
                yield chunk
            await self.wait.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def http(node: Node) -> TestClient:
    routes = streams.stream_routes(lambda: node, lambda _, name: PODS.get(name))
    return TestClient(Starlette(routes=routes))


# -- logs ----------------------------------------------------------------------------


def test_a_log_is_text_of_the_only_container(http: TestClient, node: Node) -> None:
    answer = http.get(f"{BASE}/web/log")
    assert (answer.status_code, answer.text) == (200, "one\ntwo\n")
    assert answer.headers["content-type"].startswith("text/plain")
    assert node.asked == (
        "default",
        "web",
        "main",
        {
            "follow": False,
            "tail_lines": None,
            "since_seconds": None,
            "timestamps": False,
            "previous": False,
        },
    )
    assert node.closed


def test_options_of_a_log_reach_the_node(http: TestClient, node: Node) -> None:
    options = {
        "container": "b",
        "follow": "true",
        "tailLines": "5",
        "sinceSeconds": "60",
        "timestamps": "1",
        "previous": "true",
    }
    assert http.get(f"{BASE}/two/log", params=options).status_code == 200
    assert node.asked == (
        "default",
        "two",
        "b",
        {
            "follow": True,
            "tail_lines": 5,
            "since_seconds": 60,
            "timestamps": True,
            "previous": True,
        },
    )


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "specified for pod two, choose one of: [a b] or one of the init containers: [i]"),
        ("container=x", "container x is not valid for pod two"),
        ("container=a&tailLines=-1", "tailLines"),
        ("container=a&follow=perhaps", "follow"),
        ("container=a&limitBytes=x", "limitBytes"),
        ("container=a&stream=Stderr", "stream"),
        ("container=a&sinceTime=yesterday", "sinceTime"),
        ("container=a&sinceTime=2026-01-01T00:00:00", "names no time zone"),
        ("container=a&sinceTime=2026-01-01T00:00:00Z&sinceSeconds=5", "at most one"),
    ],
)
def test_what_is_wrong_with_a_log_request_is_said(http: TestClient, query: str, words: str) -> None:
    answer = http.get(f"{BASE}/two/log?{query}")
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    assert words in answer.json()["message"]


@pytest.mark.parametrize("container", ["a", "i", "e"])
def test_every_sort_of_container_has_a_log(http: TestClient, container: str) -> None:
    assert http.get(f"{BASE}/two/log?container={container}").status_code == 200


def test_a_pod_without_containers_has_no_log() -> None:
    with pytest.raises(StatusError, match=r"must be specified for pod p$"):
        streams.choose_container("p", {}, "")


@pytest.mark.parametrize(("limit", "text"), [(0, ""), (5, "one\nt"), (8, "one\ntwo\n")])
def test_a_log_ends_at_its_limit(http: TestClient, limit: int, text: str) -> None:
    assert http.get(f"{BASE}/web/log?limitBytes={limit}").text == text


def test_no_such_log_is_a_status(http: TestClient, node: Node) -> None:
    node.chunks, node.error = [], LookupError("previous container not found")
    answer = http.get(f"{BASE}/web/log")
    assert (answer.status_code, answer.json()["message"]) == (400, "previous container not found")


def test_a_log_that_breaks_off_says_why(http: TestClient, node: Node) -> None:
    node.error = LookupError("the container's log is gone")
    assert http.get(f"{BASE}/web/log").text == "one\ntwo\nthe container's log is gone\n"


def test_since_time_is_turned_into_seconds() -> None:
    now = datetime(2026, 1, 1, 12, 0, 30, 1, tzinfo=UTC)
    assert streams._since_seconds({"sinceTime": "2026-01-01T12:00:00Z"}, now) == 31
    assert streams._since_seconds({"sinceTime": "2027-01-01T12:00:00Z"}, now) == 0


async def call(
    node: Node,
    messages: "asyncio.Queue[dict[str, Any]]",
    query: str,
    stopping: asyncio.Event | None = None,
) -> tuple["asyncio.Task[None]", "asyncio.Queue[Any]"]:
    """Call the log route as a server does, message by message."""
    routes = streams.stream_routes(lambda: node, lambda _, name: PODS.get(name), stopping)
    app = Starlette(routes=routes)
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {
        "type": "http",
        "method": "GET",
        "path": f"{BASE}/web/log",
        "query_string": query.encode(),
        "headers": [],
    }
    return asyncio.create_task(app(scope, messages.get, sent.put)), sent


@pytest.mark.looptime
async def test_following_a_silent_log_sends_headers_and_ends_with_the_client(node: Node) -> None:
    node.chunks = []
    node.wait.clear()
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    task, sent = await call(node, messages, "follow=true")
    assert (await asyncio.wait_for(sent.get(), 5))["status"] == 200
    await asyncio.sleep(3600)
    assert not task.done()
    messages.put_nowait({"type": "http.request", "body": b"", "more_body": False})
    messages.put_nowait({"type": "http.disconnect"})
    await asyncio.wait_for(task, 5)
    assert node.closed


async def test_when_the_server_stops_a_followed_log_ends_as_a_whole_answer(node: Node) -> None:
    node.wait.clear()
    stopping = asyncio.Event()
    task, sent = await call(node, asyncio.Queue(), "follow=true", stopping)
    received = [await asyncio.wait_for(sent.get(), 5) for _ in range(3)]
    assert [m.get("body") for m in received] == [None, b"one\n", b"two\n"]
    stopping.set()
    await asyncio.wait_for(task, 5)
    assert sent.get_nowait() == {"type": "http.response.body", "body": b"", "more_body": False}
    assert sent.empty()
    assert node.closed


async def test_when_the_server_stops_a_port_forward_is_closed(node: Node) -> None:
    stopping = asyncio.Event()
    routes = streams.stream_routes(lambda: node, lambda _, name: PODS.get(name), stopping)
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    messages.put_nowait({"type": "websocket.connect"})
    sent: asyncio.Queue[Any] = asyncio.Queue()
    scope = {
        "type": "websocket",
        "path": f"{BASE}/web/portforward",
        "query_string": b"",
        "headers": [],
        "subprotocols": ["SPDY/3.1+portforward.k8s.io"],
    }
    task = asyncio.create_task(Starlette(routes=routes)(scope, messages.get, sent.put))
    assert (await asyncio.wait_for(sent.get(), 5))["type"] == "websocket.accept"
    stopping.set()
    await asyncio.wait_for(task, 5)
    assert (await sent.get())["code"] == 1001


# -- port-forward, exec, attach ------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_port_forward_without_a_websocket_names_the_way_out(http: TestClient, method: str) -> None:
    answer = http.request(method, f"{BASE}/web/portforward")
    assert answer.status_code == 400
    assert "kubectl 1.31" in answer.json()["message"]


@pytest.mark.parametrize("verb", ["log", "portforward", "exec", "attach"])
def test_a_pod_that_is_not_there_is_not_found(http: TestClient, verb: str) -> None:
    answer = http.get(f"{BASE}/nobody/{verb}")
    assert answer.status_code == 404
    assert answer.json()["message"] == 'pods "nobody" not found'
    assert answer.json()["details"] == {"name": "nobody", "kind": "pods"}


@pytest.mark.parametrize(
    ("path", "protocols", "code", "words"),
    [
        ("nobody/portforward?ports=80", [], 404, "not found"),
        ("web/portforward", [], 400, "name at least one"),
        ("web/portforward?ports=99999", [], 400, "is not a port"),
        ("web/exec", ["v5.channel.k8s.io"], 501, "exec is not implemented"),
        ("web/attach", ["v5.channel.k8s.io"], 501, "attach is not implemented"),
    ],
)
def test_a_websocket_is_refused_with_a_status(
    http: TestClient, path: str, protocols: list[str], code: int, words: str
) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused:
        http.websocket_connect(f"{BASE}/{path}", subprotocols=protocols).__enter__()
    assert refused.value.status_code == code
    assert words in refused.value.json()["message"]


class ExecNode(Node):
    async def exec(self, *_: Any, **__: Any) -> Any:
        raise LookupError("container main is not running")


def test_a_node_that_can_exec_is_asked_over_a_websocket_only() -> None:
    routes = streams.stream_routes(ExecNode, lambda _, name: PODS.get(name))
    http = TestClient(Starlette(routes=routes))
    answer = http.post(f"{BASE}/web/exec?command=ls")
    assert (answer.status_code, "kubectl 1.31" in answer.json()["message"]) == (400, True)
    with pytest.raises(WebSocketDenialResponse) as refused:
        http.websocket_connect(f"{BASE}/web/exec").__enter__()
    assert "at least one command" in refused.value.json()["message"]
    with http.websocket_connect(f"{BASE}/web/exec?command=ls") as websocket:
        assert b"container main is not running" in websocket.receive_bytes()


def test_without_a_node_the_client_is_asked_to_come_again() -> None:
    http = TestClient(Starlette(routes=streams.stream_routes(lambda: None, lambda *_: POD)))
    answer = http.get(f"{BASE}/web/log")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_websocket_carries_the_words_of_the_node(http: TestClient) -> None:
    with http.websocket_connect(f"{BASE}/web/portforward?ports=80") as websocket:
        messages = [websocket.receive_bytes() for _ in range(3)]
    assert messages[2] == b"\1cannot connect to port 80: pod default/web declares no port 80"
