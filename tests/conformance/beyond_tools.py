"""What the suite asks of a server beyond tools: resources, prompts, questions to the user.

Tool servers of ours offer tools only. With these fixtures on one of them, the suite looks at all
that goes through our app all the same: an MCPServer of a user's own is served in the same way.
"""

import asyncio
import base64
import json
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import (
    Completion,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    "rkJggg=="
)


def _form(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sample(text: str) -> CreateMessageRequest:
    said = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[said], max_tokens=50))


_NAME = {"user_name": _form("What is your name?", "name")}
_CAPITAL = {"capital_question": _sample("What is the capital of France?")}
_ROOTS = {"client_roots": ListRootsRequest()}
_OK = {"confirm": _form("Please confirm", "ok", "boolean")}


def _asking(name: str, *rounds: dict[str, Any], state: bool = False) -> Any:
    """Make a tool that asks its caller for something, in one round or several."""

    async def ask(ctx: Context) -> str | InputRequiredResult:
        given = ctx.input_responses or {}
        done = int(ctx.request_state or 0)
        if done < len(rounds) and not all(key in given for key in rounds[done]):
            return InputRequiredResult(
                input_requests=rounds[done], request_state=str(done) if state else None
            )
        if done + 1 < len(rounds):
            return InputRequiredResult(input_requests=rounds[done + 1], request_state=str(done + 1))
        return f"state-ok { ({key: str(value) for key, value in given.items()}) }"

    ask.__name__ = name
    ask.__doc__ = f"Ask for {', '.join(key for asked in rounds for key in asked)}."
    return ask


_PREFIX = "test_input_required_result_"


async def test_input_required_result_capabilities(ctx: Context) -> InputRequiredResult:
    """Ask only for what the caller says it can be asked."""
    can = ctx.client_capabilities
    asked = _CAPITAL if can and can.sampling else _NAME
    return InputRequiredResult(input_requests=dict(asked))


async def test_trigger_tool_change(ctx: Context) -> str:
    """Say that the tools changed."""
    await ctx.notify_tools_changed()
    return "said"


async def test_trigger_prompt_change(ctx: Context) -> str:
    """Say that the prompts changed."""
    await ctx.notify_prompts_changed()
    return "said"


async def test_tool_with_logging(ctx: Context) -> str:
    """Log three times."""
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(text)
        await asyncio.sleep(0.05)
    return "done"


TOOLS: list[Any] = [
    test_tool_with_logging,
    test_trigger_tool_change,
    test_trigger_prompt_change,
    test_input_required_result_capabilities,
    _asking(f"{_PREFIX}elicitation", _NAME),
    _asking(f"{_PREFIX}sampling", _CAPITAL),
    _asking(f"{_PREFIX}list_roots", _ROOTS),
    _asking(f"{_PREFIX}request_state", _OK, state=True),
    _asking(f"{_PREFIX}tampered_state", _OK, state=True),
    _asking(
        f"{_PREFIX}multiple_inputs", {**_NAME, "greeting": _sample("Hi"), **_ROOTS}, state=True
    ),
    _asking(
        f"{_PREFIX}multi_round",
        {"step1": _form("Step 1: What is your name?", "name")},
        {"step2": _form("Step 2: What is your favorite color?", "color")},
        state=True,
    ),
]


def add_to(server: MCPServer[Any]) -> None:
    """Add resources, prompts and completions to a server."""

    @server.resource("test://static-text", mime_type="text/plain")
    def text() -> str:
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def binary() -> bytes:
        return base64.b64decode(PIXEL)

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        return "watched"

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:  # noqa: A002 - the suite's word
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})

    @server.prompt(name="test_simple_prompt", description="test_simple_prompt")
    def simple() -> str:
        return "This is a simple prompt for testing."

    @server.prompt(name="test_prompt_with_arguments", description="test_prompt_with_arguments")
    def arguments(arg1: str, arg2: str) -> str:
        return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"

    @server.prompt(
        name="test_prompt_with_embedded_resource", description="test_prompt_with_embedded_resource"
    )
    def embedded(resourceUri: str) -> list[UserMessage]:  # noqa: N803 - the suite's word
        contents = TextResourceContents(
            uri=resourceUri, mime_type="text/plain", text="Embedded resource content for testing."
        )
        return [
            UserMessage(EmbeddedResource(type="resource", resource=contents)),
            UserMessage("Please process the embedded resource above."),
        ]

    @server.prompt(name="test_prompt_with_image", description="test_prompt_with_image")
    def image() -> list[UserMessage]:
        return [
            UserMessage(ImageContent(type="image", data=PIXEL, mime_type="image/png")),
            UserMessage("Please analyze the image above."),
        ]

    @server.prompt(name=f"{_PREFIX}prompt", description="Asks for a context")
    def asking(ctx: Context) -> str | InputRequiredResult:
        if "user_context" not in (ctx.input_responses or {}):
            question = _form("What context should the prompt use?", "context")
            return InputRequiredResult(input_requests={"user_context": question})
        return "with a context"

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]
    async def complete(*_: Any) -> Completion:
        return Completion(values=["paris", "park"], total=2, has_more=False)
