"""A running `kaos up`: from a started cluster process to the last line of its logs.

Guaranteed: however the session ends (done, failed, Ctrl-C, SIGTERM), the cluster process that it
started has ended too, unless it is detached and up; a second Ctrl-C kills it and what is left of
its pods. A cluster that was running before is never stopped from here.
"""

import asyncio
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from rich.text import Text

from kaos.cli import connect
from kaos.cli.apply import apply_all
from kaos.cli.ask import agent_url, ask, require_reachable, say
from kaos.cli.check import OURS
from kaos.cli.cluster_process import ClusterProcess, Outrun
from kaos.cli.errors import FAILED, CliError
from kaos.cli.follow import Follower
from kaos.cli.leftovers import clean
from kaos.cli.manifests import Manifest
from kaos.cli.render import Progress, console, table
from kaos.cli.request import Request
from kaos.cli.resources import Key, gateway_path, key_of, unreachable
from kaos.cli.wait import wait_ready
from kaos.cli.watcher import Watcher
from kaos.local.state import DEFAULT_FOLDER, ClusterInfo
from kaos.runtime import Client
from kaos.telemetry import logs

INTERRUPTED = 130
_ONE_SIGNAL = 0.3  # seconds in which a second one is no impatience: timeout(1) sends two at once
_RETURN_PATIENCE = 30.0  # for what a cluster had before: one of them may be broken on purpose


async def run(request: Request, manifests: list[Manifest], process: ClusterProcess | None) -> int:
    """Do what was asked for and return the exit code.

    Args:
        request: The command line.
        manifests: What to apply, checked.
        process: The cluster process, just started; ``None`` when one was running before.

    Raises:
        CliError: it failed; what was started has been stopped.
    """
    logs.configure("CRITICAL")  # the watches' complaints about a cluster that is going down
    session = _Session(request, manifests, process)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, session.interrupted)
    try:
        async with anyio.create_task_group() as group:
            session.on_interrupt = group.cancel_scope.cancel
            code = await session.work(group.start_soon)
            session.finished = True
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await session.stop()
    if session.interrupts:
        return 0 if session.steady else INTERRUPTED
    return code


class _Session:
    """What `run` keeps track of."""

    def __init__(
        self, request: Request, manifests: list[Manifest], process: ClusterProcess | None
    ) -> None:
        self.interrupts = 0
        self._interrupted = float("-inf")
        self.on_interrupt: Callable[[], object] = lambda: None
        self.steady = False
        self.finished = False
        self._request = request
        self._manifests = manifests
        self._process = process
        self._keep = False
        self._out = console(stderr=request.ask is not None)

    def interrupted(self) -> None:
        """A signal came: stop in order, or at once when it is the second."""
        now = time.monotonic()
        if now < self._interrupted + _ONE_SIGNAL:
            return
        self._interrupted = now
        self.interrupts += 1
        if self.interrupts > 1 and self._process is not None:
            self._process.kill()
        self.on_interrupt()

    async def work(self, start_soon: Callable[..., object]) -> int:
        """Bring everything up, and stay for as long as that is wanted."""
        request = self._request
        info = await self._cluster(start_soon)
        process = self._process
        config = connect.config_of(request.state, info)
        watcher = Watcher(config)
        async with (
            Client.connect(config, field_manager=connect.FIELD_MANAGER) as client,
            watcher.running(),
        ):
            keys = await self._bring_up(client, watcher)
            if request.ask is not None:
                agent = _first_agent(keys)
                require_reachable(watcher.body(agent))
                await _answer(info, agent, request.ask)
                return 0
            found = (watcher.body(k) for k in keys or watcher.keys() if k.kind == "Agent")
            self._show_urls(info, [body for body in found if body])
            if process is None:
                return 0
            if request.detach:
                return 0
            self.steady = True
            self._out.print("Ctrl-C stops everything. Logs follow.\n")
            await Follower(client, watcher, self._out).run(request.state.cluster_log)
        return FAILED

    async def _cluster(self, start_soon: Callable[..., object]) -> ClusterInfo:
        """The cluster that we have started, once it is up, or the one that was faster."""
        if self._process is not None:
            try:
                info = await self._process.ready()
            except Outrun:
                self._process = None
            else:
                took = time.monotonic() - self._process.started
                self._out.print(f"Cluster is up ({took:.1f} s)")
                self._keep = self._request.detach
                start_soon(_expect_alive, self._process)
                return info
        info = await connect.wait_running(self._request.state)
        self._out.print(f"A cluster runs already in {self._request.state.folder}: using that one")
        self._note_ignored(info)
        return info

    async def _bring_up(self, client: Client, watcher: Watcher) -> list[Key]:
        """Apply and wait; returns whom we waited for."""
        with Progress(self._out) as progress:
            await apply_all(client, self._manifests)
            keys = [
                Key(manifest.kind, manifest.namespace or "default", manifest.name)
                for manifest in self._manifests
                if manifest.kind in OURS
            ]
            if self._request.ask is not None and not self._request.files:
                keys = watcher.keys()
                _first_agent(keys)
            if not self._request.files and self._request.ask is None and self._process is not None:
                await self._return(watcher, progress)
                return keys
            await wait_ready(watcher, keys, timeout=self._request.timeout, show=progress.update)
        return keys

    async def _return(self, watcher: Watcher, progress: Progress) -> None:
        """Wait for what was there before; nobody asked for it now, so its failure ends nothing."""
        timeout = min(self._request.timeout, _RETURN_PATIENCE)
        try:
            await wait_ready(watcher, watcher.keys(), timeout=timeout, show=progress.update)
        except CliError as error:
            self._out.print(Text(str(error)))

    async def stop(self) -> None:
        """End the cluster process that this session started, unless it is to stay."""
        process = self._process
        if process is None:
            return
        if self._keep and not self.interrupts:
            if not self.finished:
                self._out.print("The cluster goes on in the background")
            where = state_option(self._request.state.folder)
            self._out.print(f"`kaos status{where}` shows it, `kaos down{where}` stops it")
            return
        if self.steady or self.interrupts:
            self._out.print("Stopping everything (Ctrl-C again: at once) …")
        orderly = await process.stop()
        if not orderly:
            for who in await anyio.to_thread.run_sync(clean, self._request.state):
                self._out.print(f"Ended a leftover: {who}")
        if self.steady or self.interrupts:
            self._out.print("Stopped" if orderly else "Killed")

    def _note_ignored(self, info: ClusterInfo) -> None:
        if self._request.overrides:
            self._out.print("  --model-override has no effect on it: `kaos down` first")
        if self._request.port not in (info.gateway_port, 8080):
            self._out.print(f"  its gateway stays on port {info.gateway_port}")

    def _show_urls(self, info: ClusterInfo, agents: Sequence[Mapping[str, Any]]) -> None:
        if agents:
            rows = [(str(key_of(body)), _address(info, body)) for body in agents]
            self._out.print()
            self._out.print(table(("agent", "url"), rows))
        self._out.print(f"\nexport KUBECONFIG={_shown(self._request.state.kubeconfig)}")


async def _expect_alive(process: ClusterProcess) -> None:
    code = await process.ended()
    how = f"was killed (signal {-code})" if code < 0 else f"ended (exit code {code})"
    raise CliError(f"the cluster process {how}: see {process.state.cluster_log}")


async def _answer(info: ClusterInfo, agent: Key, question: str) -> None:
    """Print the agent's answer, and nothing else, on standard output."""
    base = agent_url(info.gateway_url, agent.namespace, agent.name)
    async for piece in ask(base, agent.name, [{"role": "user", "content": question}]):
        say(piece)
    say("\n")


def _first_agent(keys: Sequence[Key]) -> Key:
    for key in keys:
        if key.kind == "Agent":
            return key
    raise CliError("--ask: there is no agent in this cluster: name a file with one")


def _address(info: ClusterInfo, body: Mapping[str, Any]) -> str:
    """Where OpenAI clients find an agent, or why they do not."""
    if path := gateway_path(body):
        return f"{info.gateway_url}{path}/v1/chat/completions"
    return unreachable(body).partition(":")[0] or "no route yet"


def state_option(folder: Path) -> str:
    """What a command needs so that it finds ``folder`` from here: nothing, or ` --state …`."""
    return "" if folder == Path(DEFAULT_FOLDER).absolute() else f" --state {_shown(folder)}"


def _shown(path: Path) -> str:
    """The path as short as it can be typed from here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
