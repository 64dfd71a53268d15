"""The clusters that the scenarios run on: the embedded one, any current one, or kind.

What differs is only how a cluster comes to be and how its gateway and controller are reached;
everything that a scenario does goes through kubectl and HTTP, as a user's hands would.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kaos import __version__

ROOT = Path(__file__).parents[3]
IMAGE = os.environ.get("KAOS_E2E_IMAGE", f"kaos/kaos:{__version__}")
OLLAMA_IMAGE = os.environ.get("KAOS_E2E_OLLAMA_IMAGE", "kaos.local/ollama:1")
SYSTEM = "kaos-system"


def kubectl_program() -> str:
    """The kubectl of this environment, else the one on the PATH."""
    own = Path(sys.executable).parent / "kubectl"
    found = str(own) if own.exists() else shutil.which("kubectl")
    assert found, "the scenarios need kubectl"
    return found


def eventually(what: str, check: Callable[[], Any], timeout: float = 60, every: float = 0.2) -> Any:
    """Wait until a check returns something true, and return that."""
    deadline = time.monotonic() + timeout
    seen: Any = None
    while time.monotonic() < deadline:
        seen = check()
        if seen:
            return seen
        time.sleep(every)
    raise AssertionError(f"{what}: not within {timeout:.0f} s (last seen: {seen!r})")


class Target(ABC):
    """A cluster with KAOS on it."""

    kubeconfig: Path
    gateway: str
    can_restart_api_server = False

    def kubectl(
        self, *args: str, stdin: str | None = None, check: bool = True, timeout: float = 150
    ) -> str:
        """Run kubectl; returns what it printed."""
        done = subprocess.run(
            [kubectl_program(), "--kubeconfig", str(self.kubeconfig), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any]:
        """An object, or {} when there is none."""
        out = self.kubectl("get", kind, name, "-n", namespace, "-o", "json", check=False)
        found: dict[str, Any] = json.loads(out) if out else {}
        return found

    def names(self, kind: str, namespace: str, selector: str = "") -> list[str]:
        """The names of the objects of a kind."""
        out = self.kubectl(
            "get", kind, "-n", namespace, "-o", "name", *(["-l", selector] if selector else [])
        )
        return [line.rsplit("/", 1)[1] for line in out.split()]

    def wait_ready(self, kind: str, name: str, namespace: str, timeout: int = 180) -> None:
        """Wait until the resource says Ready; on failure, say what it said."""
        try:
            self.kubectl(
                *("wait", "--for=condition=Ready", f"{kind}/{name}", "-n", namespace),
                f"--timeout={timeout}s",
                timeout=timeout + 30,
            )
        except AssertionError as error:
            status = self.get(kind, name, namespace).get("status")
            pods = self.kubectl("get", "pods", "-n", namespace, "-o", "wide", check=False)
            raise AssertionError(f"{error}\n{json.dumps(status, indent=1)}\n{pods}") from None

    @contextlib.contextmanager
    def port_forward(
        self, what: str, port: int, namespace: str, local: int | str = ""
    ) -> Iterator[str]:
        """kubectl port-forward to a local port, a free one by default; yields the URL."""
        process = subprocess.Popen(
            [
                *(kubectl_program(), "--kubeconfig", str(self.kubeconfig)),
                *("port-forward", what, f"{local}:{port}", "-n", namespace),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "Forwarding from 127.0.0.1:" in line, line + process.stdout.read()
            yield f"http://127.0.0.1:{line.split('127.0.0.1:')[1].split(' ')[0]}"
        finally:
            process.terminate()
            process.communicate(timeout=10)

    @abstractmethod
    def running(self) -> contextlib.AbstractContextManager[None]:
        """The cluster with KAOS on it, for the length of the block."""

    @abstractmethod
    def controller_stopped(self) -> contextlib.AbstractContextManager[None]:
        """No controller runs during the block."""

    def restart_api_server(self) -> None:
        """Kill the API server and start it again."""
        raise NotImplementedError


class Embedded(Target):
    """The embedded cluster, its controllers in a process of their own so that they can stop."""

    def __init__(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="kaos-e2e-"))
        self.kubeconfig = self.state / "kubeconfig"
        self.port = _free_port()
        self.gateway = f"http://localhost:{self.port}"
        self._controller: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        cluster = subprocess.Popen(
            [
                *(sys.executable, "-m", "kaos.local", "--state", str(self.state)),
                *("--gateway-port", str(self.port), "--no-controllers"),
                *("--model-override", "llama3.2:latest=smollm2:135m"),
            ]
        )
        try:
            eventually("the embedded cluster", (self.state / "cluster.json").exists, 30)
            self._start_controller()
            yield
        finally:
            self._stop_controller()
            cluster.send_signal(signal.SIGTERM)
            cluster.wait(60)
            shutil.rmtree(self.state, ignore_errors=True)

    @contextlib.contextmanager
    def controller_stopped(self) -> Iterator[None]:
        self._stop_controller()
        yield
        self._start_controller()

    def _start_controller(self) -> None:
        with (self.state / "controller.log").open("ab") as log:
            self._controller = subprocess.Popen(
                [sys.executable, "-m", "kaos.reconcilers"],
                env={
                    **os.environ,
                    "KUBECONFIG": str(self.kubeconfig),
                    "KAOS_LISTEN": "127.0.0.1:0",
                    "KAOS_SERVICE_MAP": str(self.state / "node" / "services.json"),
                },
                stderr=log,
            )

    def _stop_controller(self) -> None:
        if self._controller is not None:
            self._controller.terminate()
            assert self._controller.wait(30) == 0
            self._controller = None


class Current(Target):
    """The cluster of the current kubeconfig, with the images loaded and a Gateway installed."""

    def __init__(self) -> None:
        self.kubeconfig = Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
        self._restart = os.environ.get("KAOS_E2E_RESTART_APISERVER", "")
        self.can_restart_api_server = bool(self._restart)
        self._port = _free_port()
        self._forward = contextlib.ExitStack()
        self.gateway = os.environ.get("KAOS_E2E_GATEWAY", f"http://127.0.0.1:{self._port}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        self.install()
        with self._forward:
            if not os.environ.get("KAOS_E2E_GATEWAY"):
                self._open_gateway()
            yield

    def install(self) -> None:
        """What the README says, with the images of the tests."""
        self.kubectl("apply", "-k", str(ROOT / "manifests"))
        controller = ("deployment/kaos-controller", "-n", SYSTEM)
        self.kubectl("set", "image", *controller, f"controller={IMAGE}")
        self.kubectl("set", "env", *controller, f"KAOS_OLLAMA_IMAGE={OLLAMA_IMAGE}")
        self.kubectl("rollout", "status", *controller, "--timeout=120s")

    @contextlib.contextmanager
    def controller_stopped(self) -> Iterator[None]:
        controller = ("deployment/kaos-controller", "-n", SYSTEM)
        self.kubectl("scale", *controller, "--replicas=0")
        selector = "app.kubernetes.io/name=kaos-controller"
        eventually("the controller's end", lambda: not self.names("pods", SYSTEM, selector))
        yield
        self.kubectl("scale", *controller, "--replicas=1")
        self.kubectl("rollout", "status", *controller, "--timeout=120s")

    def restart_api_server(self) -> None:
        self._forward.close()  # it goes through the API server and would not come back by itself
        subprocess.run(self._restart.split(), check=True, timeout=120)
        self._open_gateway()

    def _open_gateway(self) -> None:
        service = self._gateway_service()
        where = (f"svc/{service['name']}", 80, service["namespace"])
        self._forward.enter_context(self.port_forward(*where, local=self._port))

    def _gateway_service(self) -> dict[str, Any]:
        """The Service of the Gateway's proxy, by the labels that implementations give it."""
        for label in (
            "gateway.envoyproxy.io/owning-gateway-name",
            "gateway.networking.k8s.io/gateway-name",
        ):
            found = self.kubectl("get", "svc", "-A", "-l", f"{label}=kaos-gateway", "-o", "json")
            for item in json.loads(found)["items"]:
                service: dict[str, Any] = item["metadata"]
                return service
        raise AssertionError("no Gateway's Service was found: set KAOS_E2E_GATEWAY to its URL")


class Kind(Current):
    """A kind cluster, made and removed here; all else is as on any current one."""

    NAME = "kaos-e2e"

    def __init__(self) -> None:
        super().__init__()
        self.kubeconfig = Path(tempfile.mkdtemp(prefix="kaos-kind-")) / "kubeconfig"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        def kind(*args: str) -> None:
            subprocess.run(["kind", *args, "--name", self.NAME], check=True, timeout=600)

        config = str(ROOT / "deploy" / "kind.yaml")
        kind("create", "cluster", "--config", config, "--kubeconfig", str(self.kubeconfig))
        try:
            others = [f"kaos/kaos-{role}:{__version__}" for role in ("node", "litellm")]
            for image in (IMAGE, *others, OLLAMA_IMAGE):
                kind("load", "docker-image", image)
            with super().running():
                yield
        finally:
            kind("delete", "cluster", "--kubeconfig", str(self.kubeconfig))


TARGETS: dict[str, type[Target]] = {"embedded": Embedded, "current": Current, "kind": Kind}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
