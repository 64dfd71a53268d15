"""Port-forward and exec with the real clients: kubectl and kr8s.

The API around the stub pod is only what the two ask for before they forward.
"""

import asyncio
import hashlib
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import kr8s.asyncio
import pytest
from hypercorn.config import Config
from kr8s.asyncio.objects import Pod
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kaos.cli.ports import free_port
from kaos.local.apiserver.streams import stream_routes

pytestmark = pytest.mark.process

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "default", "uid": "1"},
    "spec": {"containers": [{"name": "main"}]},
    "status": {"phase": "Running"},
}
RESOURCE = {
    "name": "pods",
    "singularName": "pod",
    "namespaced": True,
    "kind": "Pod",
    "verbs": ["get", "list"],
}
DISCOVERY: dict[str, dict[str, Any]] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [RESOURCE]},
    "/api/v1/namespaces/default/pods/web": POD,
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
}


def find_kubectl() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.exists() else shutil.which("kubectl") or ""


class Node:
    async def open_port(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert (namespace, pod) == ("default", "web")
        return await asyncio.open_connection("127.0.0.1", port)

    async def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], **_: Any
    ) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)

    def read_logs(self, namespace: str, pod: str, container: str, **_: Any) -> AsyncIterator[bytes]:
        raise LookupError


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, then end this side when the other has ended its own."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def answer(request: Request) -> JSONResponse:
    return JSONResponse(DISCOVERY[request.url.path])


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[str, int]]:
    """An API server with one pod; gives its URL and the port of an echo server in the pod."""
    server = await asyncio.start_server(echo, "127.0.0.1")
    routes = [*stream_routes(Node, lambda _namespace, _name: POD)]
    app = Starlette(routes=[*routes, *(Route(path, answer) for path in DISCOVERY)])
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    sockets = config.create_sockets()
    sockets.insecure_sockets[0].listen(100)  # the first client may come before hypercorn does
    address = sockets.insecure_sockets[0].getsockname()
    config.create_sockets = lambda: sockets  # type: ignore[method-assign]
    stop = asyncio.Event()
    serving = asyncio.create_task(
        hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
    )
    try:
        yield f"http://127.0.0.1:{address[1]}", server.sockets[0].getsockname()[1]
    finally:
        stop.set()
        await serving
        server.close()


def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": os.devnull}


async def kubectl_exec(
    url: str, home: Path, *command: str, given: bytes
) -> tuple[int | None, bytes, bytes]:
    """Run a command with kubectl exec; returns exit code, output and errors."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *(find_kubectl(), f"--server={url}", "exec", "-i", "web", "--", *command),
        env=environment(home),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(given), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output, errors


@asynccontextmanager
async def kubectl_forward(url: str, port: int, home: Path) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        *(find_kubectl(), f"--server={url}", "port-forward", "pod/web", f":{port}"),
        "--address=127.0.0.1",
        env=environment(home),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        drain = asyncio.create_task(process.stdout.read())
        yield int(line.split("127.0.0.1:")[1].split()[0])
        process.terminate()
        await drain
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def round_trip(port: int, payload: bytes) -> str:
    """Send, end, and read to the end; returns the hash of what came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    digest = hashlib.sha256()

    async def send() -> None:
        writer.write(payload)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    while data := await reader.read(1 << 16):
        digest.update(data)
    await sending
    writer.close()
    await writer.wait_closed()
    return digest.hexdigest()


@pytest.mark.skipif(not find_kubectl(), reason="there is no kubectl")
async def test_kubectl_carries_many_and_large_connections(tmp_path: Path) -> None:
    rng = random.Random(1)
    payloads = [rng.randbytes(10_000_000), *(rng.randbytes(size * 97) for size in range(1, 40))]
    async with cluster() as (url, port), kubectl_forward(url, port, tmp_path) as local:
        got = await asyncio.gather(*(round_trip(local, payload) for payload in payloads))
    assert got == [hashlib.sha256(payload).hexdigest() for payload in payloads]


@pytest.mark.skipif(not find_kubectl(), reason="there is no kubectl")
async def test_kubectl_runs_commands(tmp_path: Path) -> None:
    payload = random.Random(3).randbytes(2_000_000)
    async with cluster() as (url, _):
        code, output, _errors = await kubectl_exec(url, tmp_path, "cat", given=payload)
        assert (code, output == payload) == (0, True)
        script = "echo out; echo err >&2; exit 7"
        code, output, errors = await kubectl_exec(url, tmp_path, "sh", "-c", script, given=b"")
        assert (code, output) == (7, b"out\n")
        assert errors.startswith(b"err\n")
        code, _output, errors = await kubectl_exec(url, tmp_path, "/no/such/program", given=b"")
        assert (code, b"No such file" in errors) == (1, True)


async def test_kr8s_carries_a_large_connection() -> None:
    payload = random.Random(2).randbytes(3_000_000)
    async with cluster() as (url, port):
        config: Any = {
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
            "current-context": "c",
        }
        api = await kr8s.asyncio.api(kubeconfig=config)
        pod = Pod(POD, api=api)
        async with pod.portforward(port, local_port=free_port()) as local:
            reader, writer = await asyncio.open_connection("127.0.0.1", local)
            sending = asyncio.create_task(_send(writer, payload))
            got = await reader.readexactly(len(payload))
            await sending
            writer.close()
        assert api._session is not None
        await api._session.aclose()  # kr8s keeps it for ever, and its sockets with it
    assert got == payload


async def _send(writer: asyncio.StreamWriter, payload: bytes) -> None:
    writer.write(payload)
    await writer.drain()
