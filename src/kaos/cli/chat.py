"""`kaos chat NAME [TEXT]`: one question, or a conversation, through the gateway."""

import asyncio
import importlib
import os
import sys
from typing import Annotated

import typer

from kaos.api import Agent
from kaos.cli.ask import Message, agent_url, ask, require_reachable, say
from kaos.cli.check import nearest
from kaos.cli.client_errors import explain
from kaos.cli.connect import config_of, require_running
from kaos.cli.errors import CliError, UsageError
from kaos.cli.options import DEFAULT_STATE, Namespace, StateDir, Verbose
from kaos.cli.resources import row_of
from kaos.local.state import State
from kaos.runtime import Client, ClusterConfig, RuntimeFailure

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    help="Talk to an agent.\n\n"
    "With TEXT it answers that and is done; without, it asks you for text until Ctrl-D, and "
    "remembers what was said."
)
def chat(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The agent.")],
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="What to ask.", show_default=False)
    ] = None,
    namespace: Namespace = "default",
    state_dir: StateDir = DEFAULT_STATE,
    verbose: Verbose = False,
) -> None:
    """Send what the user says and print what comes."""
    del verbose
    if text is not None and not text.strip():
        raise UsageError("TEXT is empty: there is nothing to ask")
    state = State(state_dir)
    info = require_running(state)
    asyncio.run(_require_agent(config_of(state, info), name, namespace))
    base = agent_url(info.gateway_url, namespace, name)
    if text is not None:
        asyncio.run(_answer(base, name, [{"role": "user", "content": utf8(text)}]))
        return
    converse(base, name)


def converse(base: str, name: str) -> None:
    """Ask the user and the agent in turn, until the end of the input."""
    if sys.stdin.isatty():
        importlib.import_module("readline")  # gives input() history and editing
    messages: list[Message] = []
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            if sys.stdin.isatty():
                typer.echo()
            return
        if not said:
            continue
        messages.append({"role": "user", "content": utf8(said)})
        try:
            answer = asyncio.run(_answer(base, name, messages))
        except CliError as error:
            if not sys.stdin.isatty():
                raise  # a script learns of it by the exit code
            typer.echo(f"kaos: {error}", err=True)
            messages.pop()  # it can be asked again
        except KeyboardInterrupt:
            typer.echo(" (stopped)")
            messages.pop()
        else:
            messages.append({"role": "assistant", "content": answer})


def utf8(text: str) -> str:
    """``text`` as its bytes read in UTF-8: a locale without it hands us half characters."""
    return os.fsencode(text).decode(errors="replace") if not text.isascii() else text


async def _answer(base: str, name: str, messages: list[Message]) -> str:
    pieces = []
    async for piece in ask(base, name, messages):
        pieces.append(piece)
        say(piece)
    say("\n")
    return "".join(pieces)


async def _require_agent(config: ClusterConfig, name: str, namespace: str) -> None:
    """Say so now when there is no such agent, or why it does not answer yet."""
    try:
        async with Client.connect(config) as client:
            agents = {agent.name: agent for agent in await client.list(Agent, namespace)}
    except RuntimeFailure as error:
        raise explain(error, f"Agent/{name}") from error
    if name not in agents:
        raise CliError(f"no agent is called {name}{nearest(name, agents)}")
    body = agents[name].to_dict()
    require_reachable(body)
    row = row_of(body)
    if not row.ready:
        typer.echo(f"kaos: {row.key} is not ready: {row.message}", err=True)
