"""Telemetry: one trace through everything, by the GenAI conventions, without contents."""

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kaos.agent import app as agent_app
from kaos.agent import model as model_client
from kaos.agent.spans import GenAISpans
from kaos.telemetry import serving, tracing
from kaos.testing.model import Failure, ScriptedModel, Turn, tool_call

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "baggage": "a=b"}


class Collected:
    """What would have been sent."""

    def __init__(self, record: bool) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider(metric_readers=[self.reader])
        self.record = record

    def make(self, settings: Any) -> Any:
        return GenAISpans(
            settings.model_api_url, record=self.record, tracers=self.tracers, meters=self.meters
        )

    @property
    def spans(self) -> dict[str, Any]:
        return {f"{span.context.span_id:016x}": span for span in self.exporter.get_finished_spans()}

    def named(self, name: str) -> Any:
        (found, *_) = [span for span in self.spans.values() if span.name == name]
        return found

    def metrics(self) -> set[str]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return {m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics}


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Collected:
    made = Collected(getattr(request, "param", False))
    monkeypatch.setattr(model_client, "RETRY_DELAYS", ())
    monkeypatch.setattr(tracing, "start", lambda _service: lambda: None)
    monkeypatch.setattr(agent_app, "_spans", made.make)
    return made


@pytest.mark.parametrize("streamed", [False, True])
async def test_one_trace_from_the_caller_through_model_tools_and_peers(
    collected: Collected,
    start_agent: Any,
    ask: Any,
    http: Any,
    model: ScriptedModel,
    tool_server: str,
    streamed: bool,
) -> None:
    analyst = await start_agent(
        name="analyst", instructions="You are an analyst.", mcp_servers={"t": tool_server}
    )
    boss = await start_agent(name="boss", peers={"analyst": analyst})
    model.say(tool_call("delegate_to_analyst", task="secret"), "done")
    model.say(tool_call("echo", text="secret"), "four", when="You are an analyst")
    body = {"messages": [{"role": "user", "content": "secret"}], "stream": streamed}
    url = f"{boss}/v1/chat/completions"
    async with http.post(url, json=body, headers={**HEADERS, "x-session-id": "s-1"}) as answer:
        await answer.text()
    spans = collected.spans
    ours = [span for span in spans.values() if span.instrumentation_scope.name == "kaos.agent"]
    assert {f"{span.context.trace_id:032x}" for span in ours} == {TRACE}
    by_name = {span.name: span for span in ours}
    assert set(by_name) == {
        "invoke_agent boss",
        "invoke_agent delegate_to_analyst",
        "invoke_agent analyst",
        "chat smollm2:135m",
        "execute_tool echo",
    }

    def parent(name: str) -> str:
        above = by_name[name].parent
        found = spans.get(f"{above.span_id:016x}")
        return found.name if found else f"{above.span_id:016x}"

    assert parent("invoke_agent boss") == "00f067aa0ba902b7"
    assert parent("invoke_agent delegate_to_analyst") == "invoke_agent boss"
    assert parent("invoke_agent analyst") == "invoke_agent delegate_to_analyst"
    assert parent("execute_tool echo") == "invoke_agent analyst"
    for request in model.requests:
        _, trace, span, _ = request.headers["traceparent"].split("-")
        assert trace == TRACE
        assert spans[span].name == "chat smollm2:135m"
        assert request.headers["baggage"] == "a=b"
    chat = by_name["chat smollm2:135m"].attributes
    assert chat["gen_ai.operation.name"] == "chat"
    assert chat["gen_ai.usage.output_tokens"] > 0
    assert chat["gen_ai.response.finish_reasons"] == ("stop",)
    assert ("gen_ai.response.time_to_first_chunk" in chat) is streamed
    assert chat["server.address"] == "127.0.0.1"
    assert "secret" not in "".join(span.to_json() for span in ours)
    assert {span.attributes["gen_ai.conversation.id"] for span in ours} == {"s-1"}
    assert {
        "gen_ai.client.token.usage",
        "gen_ai.client.operation.duration",
        "gen_ai.execute_tool.duration",
        "gen_ai.invoke_agent.duration",
    } <= collected.metrics()


@pytest.mark.parametrize("collected", [True], indirect=True)
async def test_contents_are_recorded_where_they_are_to_be(
    collected: Collected, start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("echo", text="hi"), "answer")
    await ask(await start_agent(mcp_servers={"t": tool_server}), "question")
    tool = collected.named("execute_tool echo").attributes
    assert tool["gen_ai.tool.call.result"] == '"echo: hi"'
    chats = [s.attributes for s in collected.spans.values() if s.name.startswith("chat")]
    assert "question" in chats[0]["gen_ai.input.messages"]
    assert "answer" in chats[1]["gen_ai.output.messages"]


async def test_failures_are_told_by_their_kind(
    collected: Collected, start_agent: Any, ask: Any, model: ScriptedModel, tool_server: str
) -> None:
    model.say(tool_call("fail"), Turn(error=Failure(status=500)))
    await ask(await start_agent(mcp_servers={"t": tool_server}))
    assert collected.named("execute_tool fail").attributes["error.type"] == "tool_error"
    run = collected.named("invoke_agent assistant")
    assert run.attributes["error.type"] == "ModelFailed"
    assert not run.status.is_ok


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_telemetry_is_on_when_there_is_somewhere_to_send(env: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(env) is wanted


SCRIPT = """
from kaos.telemetry import tracing
import sys
end = tracing.start("x")
if end is None:
    sys.exit("opentelemetry" in sys.modules)
from kaos.agent.spans import GenAISpans
with GenAISpans("http://m")("run", "a", {}, {}) as span:
    span.result({})
end()
"""


@pytest.mark.process
async def test_spans_and_metrics_arrive_at_a_collector() -> None:
    """And without an endpoint nothing of OpenTelemetry is even imported."""
    got: list[str] = []

    async def collect(request: Request) -> Response:
        body = await request.body()
        got.append(f"{request.url.path} {b'invoke_agent' in body}")
        return Response(b"", media_type="application/x-protobuf")

    routes = [Route("/{path:path}", collect, methods=["POST"])]
    async with serving.running(Starlette(routes=routes)) as url:
        for env in ({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, {}):
            command = [sys.executable, "-c", SCRIPT]
            done = await asyncio.to_thread(
                subprocess.run, command, env=env, check=False, capture_output=True, timeout=20
            )
            assert done.returncode == 0, done.stderr
    assert sorted(got) == ["/v1/metrics True", "/v1/traces True"]
