"""Random bad bodies over HTTP never give a 500."""

import asyncio
import json
from typing import Any

import aiohttp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos.agent.app import create_app
from kaos.agent.settings import Settings
from kaos.telemetry import serving
from kaos.testing.model import ScriptedModel

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    "messages",
    "model",
    "stream",
    "stream_options",
    "tools",
    "tool_choice",
    "n",
    "temperature",
    "stop",
    "response_format",
    "max_tokens",
)
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "x")
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES)},
    optional={"content": JSON, "tool_calls": JSON, "tool_call_id": JSON, "name": JSON},
)
TOOL = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={"function": st.fixed_dictionaries({"name": st.text("ab_ ", max_size=5)}) | JSON},
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE, max_size=3) | JSON},
    optional=dict.fromkeys(FIELDS[1:], JSON) | {"tools": st.lists(TOOL, max_size=3) | JSON},
)


def encoded(body: Any) -> bytes:
    """Encode a body, cut short as by a broken client if it comes with a place to cut at."""
    if isinstance(body, bytes):
        return body
    value, at = body
    data = json.dumps(value).encode("utf-8", "surrogatepass")
    return data[: at % (len(data) + 1)] if at else data


@settings(max_examples=2, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(BODY, st.integers(0, 400)) | st.binary(max_size=50), min_size=30))
def test_no_body_gives_a_500(bodies: list[Any]) -> None:
    asyncio.run(_send([encoded(body) for body in bodies]))


async def _send(bodies: list[bytes]) -> None:
    model = ScriptedModel()
    model.say("ok", repeat=True)
    async with model.serve() as model_url:
        given = Settings(name="a", model_api_url=model_url, model_name="m")
        async with serving.running(create_app(given)) as url, aiohttp.ClientSession() as http:
            for body in bodies:
                async with http.post(f"{url}/v1/chat/completions", data=body) as answer:
                    text = await answer.text()
                    assert answer.status in (200, 400), (answer.status, text, body)
                    assert "choices" in text or "error" in text
