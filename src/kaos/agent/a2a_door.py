"""A2A 1.0 at `/a2a`, by the official SDK: messages become tasks, tasks are runs of the agent.

Guarantees: SendMessage, SendStreamingMessage, GetTask, ListTasks, CancelTask and SubscribeToTask
over JSON-RPC; an answer grows as one artifact, and is one part of it in the end; a context is a
session of the agent's, and a caller sees its own tasks only (where nobody is known, those of a
context that it names, unless `MEMORY_OPEN_LIST`); the latest tasks are kept, and not more than
`MAX_TASKS`.

The SDK answers a body that is not UTF-8 by an internal error with a traceback in the log; here
it is a parse error, as JSON-RPC has it.

Does not: push notifications, files, or tasks that outlive the process.
"""

import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from a2a.auth.user import User
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.context import ServerCallContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.routes.common import DefaultServerCallContextBuilder
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    ListTasksRequest,
    ListTasksResponse,
    Task,
)
from a2a.utils.errors import ContentTypeNotSupportedError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaos import __version__
from kaos.agent.auth.caller import caller_of
from kaos.agent.errors import AgentError, BadRequest
from kaos.agent.exchange import Exchanges
from kaos.agent.memory.keeper import SESSION_HEADER, checked_id, derived_id
from kaos.agent.openai import ChatRequest, Json

PATH = "/a2a"
MAX_TASKS = 1000


@asynccontextmanager
async def open_door(exchanges: Exchanges) -> AsyncIterator[ASGIApp]:
    """Make the app for `/a2a`."""
    settings = exchanges.settings
    about = settings.description or f"The agent {settings.name}"
    card = AgentCard(
        name=settings.name,
        description=about,
        version=__version__,
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        # Nobody reads this card (`kaos.agent.card` is the public one), but the SDK warns of gaps.
        supported_interfaces=[
            AgentInterface(url=PATH, protocol_binding="JSONRPC", protocol_version="1.0")
        ],
        skills=[AgentSkill(id="chat", name="Chat", description=about, tags=["chat"])],
    )
    tasks = _LatestTasks(open_list=settings.memory_open_list)
    handler = DefaultRequestHandlerV2(_Executor(exchanges), tasks, card)
    try:
        app = Starlette(routes=create_jsonrpc_routes(handler, PATH, context_builder=_Contexts()))
        yield partial(_readable, app)
    finally:
        await handler.aclose()


async def _readable(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on if its body is text."""
    try:
        body = await Request(scope, receive).body()
        body.decode()
    except ClientDisconnect:
        return
    except UnicodeDecodeError:
        error = {"code": -32700, "message": "Parse error: the body is not UTF-8"}
        answer = JSONResponse({"jsonrpc": "2.0", "id": None, "error": error})
        await answer(scope, receive, send)
        return
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return first.pop() if first else await receive()

    await app(scope, again, send)


class _Caller(User):
    """Who asks, as the agent's guard found out."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        return bool(self._name)

    @property
    def user_name(self) -> str:
        return self._name


class _Contexts(DefaultServerCallContextBuilder):
    def build_user(self, request: Request) -> User:
        return _Caller(caller_of(request.scope))


class _LatestTasks(InMemoryTaskStore):
    """The SDK's store, which would keep all tasks for ever, and each piece of an answer apart."""

    def __init__(self, *, open_list: bool) -> None:
        super().__init__()
        self._open_list = open_list
        self._order: OrderedDict[str, ServerCallContext] = OrderedDict()

    async def save(self, task: Task, context: ServerCallContext) -> None:
        for artifact in task.artifacts:  # ours have text only
            text = "".join(part.text for part in artifact.parts)
            del artifact.parts[1:]
            artifact.parts[0].text = text
        await super().save(task, context)
        self._order[task.id] = context
        self._order.move_to_end(task.id)
        while len(self._order) > MAX_TASKS:
            oldest, owner = self._order.popitem(last=False)
            await self.delete(oldest, owner)

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        # Where nobody is known, everybody would see everybody's; a context's id is a secret.
        if not (context.user.is_authenticated or params.context_id or self._open_list):
            return ListTasksResponse()
        return await super().list(params, context)


class _Executor(AgentExecutor):
    """Does tasks by asking the agent."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        if context.message is None:
            raise ValueError("a task needs a message")
        if not context.get_user_input().strip():
            raise ContentTypeNotSupportedError("the message has no text, which is all that is read")
        task = context.current_task
        if task is None:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        try:
            await self._answer(context, task, updater)
        except AgentError as error:
            parts = [new_text_part(error.message)]
            await updater.failed(updater.new_agent_message(parts))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task
        if task is not None:
            await TaskUpdater(event_queue, task.id, task.context_id).cancel()

    async def _answer(self, context: RequestContext, task: Task, updater: TaskUpdater) -> None:
        headers: dict[str, str] = dict(context.call_context.state.get("headers") or {})
        headers[SESSION_HEADER] = _session_of(task.context_id)
        chat = ChatRequest(messages=[{"role": "user", "content": context.get_user_input()}])
        caller = context.call_context.user.user_name
        exchange = self._exchanges.begin(headers, chat, caller=caller)
        artifact = secrets.token_hex(16)
        begun = False

        async def show(delta: Json) -> None:
            nonlocal begun
            if text := delta.get("content"):
                parts = [new_text_part(text)]
                await updater.add_artifact(parts, artifact, name="answer", append=begun)
                begun = True

        outcome = await exchange.hold(show)
        if outcome.limit:
            note = [new_text_part(f"stopped by {outcome.limit}")]
            await updater.complete(updater.new_agent_message(note))
        else:
            await updater.complete()


def _session_of(context: str) -> str:
    """A context's session. The protocol lets a client name a context in any way."""
    try:
        return checked_id(context, "contextId")
    except BadRequest:
        return derived_id("a2a", context)
