"""The real kubectl, through the commands that people type."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from kaos.local.apiserver import APIServer
from tests.unit.apiserver.support import definition, deployment, widget

Kubectl = Callable[..., Awaitable[str]]


def find_kubectl() -> str:
    beside = Path(sys.executable).with_name("kubectl")
    return str(beside) if beside.exists() else shutil.which("kubectl") or ""


pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not find_kubectl(), reason="there is no kubectl"),
]


@asynccontextmanager
async def kubectl_on_a_server(home: Path) -> AsyncIterator[Kubectl]:
    async with APIServer().serve() as url:

        async def kubectl(*arguments: str, given: object = None, fails: bool = False) -> str:
            environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": ""}
            process = await asyncio.create_subprocess_exec(
                *(find_kubectl(), f"--server={url}", *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=environment,
            )
            body = b"" if given is None else msgspec.json.encode(given)
            output, _ = await asyncio.wait_for(process.communicate(body), 20)
            assert (process.returncode != 0) is fails, output.decode()
            return output.decode().strip()

        yield kubectl


async def test_kubectl_applies_changes_and_deletes(tmp_path: Path) -> None:
    async with kubectl_on_a_server(tmp_path) as kubectl:
        web = deployment()
        assert await kubectl("apply", "-f-", given=web) == "deployment.apps/web created"
        assert await kubectl("apply", "-f-", given=web) == "deployment.apps/web unchanged"
        web["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
        assert await kubectl("apply", "-f-", given=web) == "deployment.apps/web configured"
        assert await kubectl("scale", "deploy/web", "--replicas=3") == "deployment.apps/web scaled"
        await kubectl("wait", "deploy/web", "--for=jsonpath={.spec.replicas}=3", "--timeout=5s")
        web["spec"]["replicas"] = 2
        conflict = await kubectl("apply", "--server-side", "-f-", given=web, fails=True)
        assert 'conflict with "kubectl" with subresource "scale"' in conflict
        await kubectl("apply", "--server-side", "--force-conflicts", "-f-", given=web)
        assert "0/2" in await kubectl("get", "deploy", "web")
        web["spec"]["replica"] = 3
        typo = await kubectl("apply", "-f-", given=web, fails=True)
        assert 'unknown field "spec.replica"' in typo
        await kubectl("delete", "deploy", "web", "--timeout=5s")
        assert "No resources found" in await kubectl("get", "deploy")


async def test_kubectl_creates_labels_and_ends_a_namespace(tmp_path: Path) -> None:
    async with kubectl_on_a_server(tmp_path) as kubectl:
        assert await kubectl("create", "namespace", "ns") == "namespace/ns created"
        await kubectl("-n", "ns", "create", "configmap", "c", "--from-literal=a=b")
        await kubectl("-n", "ns", "label", "configmap", "c", "x=y")
        await kubectl("-n", "ns", "patch", "configmap", "c", '-p={"data":{"k":"v"}}')
        shown = await kubectl("-n", "ns", "get", "cm", "-l", "x=y", "-o=jsonpath={.items[*].data}")
        assert shown == '{"a":"b","k":"v"}'
        await kubectl("delete", "namespace", "ns", "--timeout=5s")
        assert "NotFound" in await kubectl("get", "namespace", "ns", fails=True)
        assert await kubectl("auth", "can-i", "delete", "nodes") in {"yes", YES_WITH_WARNING}


YES_WITH_WARNING = "Warning: resource 'nodes' is not namespace scoped\n\nyes"


async def test_kubectl_uses_a_kind_right_after_its_definition(tmp_path: Path) -> None:
    crd = definition() | {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
    }
    async with kubectl_on_a_server(tmp_path) as kubectl:
        await kubectl("apply", "-f-", given=crd)
        await kubectl("wait", "--for=condition=Established", "crd/widgets.test.io")
        assert (
            await kubectl("apply", "-f-", given=widget("w", size=1)) == "widget.test.io/w created"
        )
        wrong = await kubectl("apply", "-f-", given=widget("v", size=0), fails=True)
        assert "spec.size in body should be greater than or equal to 1" in wrong
        assert "mode" in await kubectl("explain", "widget.spec")
        await kubectl("delete", "crd", "widgets.test.io", "--timeout=5s")
        assert "NotFound" in await kubectl("get", "widgets", fails=True)
