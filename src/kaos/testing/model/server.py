"""The scripted model's HTTP surface and its memory of requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from kaos.telemetry import serving
from kaos.testing.model.answer import Answer, error_response
from kaos.testing.model.script import Conversation, Failure, Play, Recorded, Script, Turn, texts_of


class ScriptedModel:
    """The server and its memory.

    Args:
        turns: What to say to everybody, in order; a text is a turn that says it.
        script: Or a whole script.
        name: The model's name at /v1/models.
    """

    def __init__(
        self, *turns: Turn | str, script: Script | None = None, name: str = "scripted"
    ) -> None:
        self.name = name
        self.requests: list[Recorded] = []
        self._plays: list[Play] = []
        self.say(*turns)
        if script is not None:
            self.load(script)
        self.app = Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/requests", self._requests, methods=["GET", "DELETE"]),
                Route("/script", self._replace, methods=["PUT", "POST"]),
                Route("/healthz", _healthy),
                Route("/readyz", _healthy),
            ]
        )

    def say(self, *turns: Turn | str, when: str = "", repeat: bool = False) -> None:
        """Replace the script by one conversation for everybody, or add one for `when`."""
        made = tuple(Turn(text=turn) if isinstance(turn, str) else turn for turn in turns)
        play = Play(Conversation(turns=made, when=when, repeat=repeat))
        self._plays = [play, *self._plays] if when else [play]

    def load(self, script: Script) -> None:
        """Replace the script."""
        self._plays = [Play(conversation) for conversation in script.conversations]

    @asynccontextmanager
    async def serve(self, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
        """Serve in this process; yields the base URL (without /v1)."""
        async with serving.running(self.app, listen=listen) as url:
            yield url

    async def _chat(self, request: Request) -> Response:
        try:
            body = await request.json()
        except ValueError as error:
            return error_response(Failure(status=400, message=f"not JSON: {error}"))
        if not isinstance(body, dict):
            return error_response(Failure(status=400, message="the body is not an object"))
        record = Recorded(headers=dict(request.headers), body=body)
        self.requests.append(record)
        play = next((p for p in self._plays if p.conversation.when in texts_of(record)), None)
        turn = play.next(record.messages) if play else None
        if turn is None:
            record.outcome = "failed"
            message = f"the script has no turn for request {len(self.requests)}"
            return error_response(Failure(status=400, message=message, code="script_exhausted"))
        record.conversation = play.conversation.when if play else ""
        return Answer(turn, record, self.name)

    async def _models(self, _request: Request) -> Response:
        model = {"id": self.name, "object": "model", "created": 0, "owned_by": "kaos"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _requests(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.requests.clear()
        return JSONResponse(
            [
                {
                    "headers": record.headers,
                    "body": record.body,
                    "conversation": record.conversation,
                    "outcome": record.outcome,
                }
                for record in self.requests
            ]
        )

    async def _replace(self, request: Request) -> Response:
        try:
            self.load(Script.model_validate_json(await request.body()))
        except ValidationError as error:
            return error_response(Failure(status=422, message=str(error)))
        return JSONResponse({"conversations": len(self._plays)})


async def _healthy(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})
