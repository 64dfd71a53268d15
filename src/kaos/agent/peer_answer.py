"""What a peer answers to a delegation: read as it comes, its steps passed up.

Guarantees: the peer's text reaches the model whole, or as an error that says how far it came
(what a peer said before it failed may still help); events of the peer's own steps are passed
up as they come, as parts of the same run; whatever a peer sends is bounded and never trusted
to be well formed.
"""

from dataclasses import dataclass, field
from typing import Any

import aiohttp
from pydantic_core import from_json

from kaos.agent.openai import Json
from kaos.agent.runs import Event, Step
from kaos.agent.tools import ToolFailed, result

MAX_ANSWER = 4 * 1024 * 1024
_STREAM = "text/event-stream"


@dataclass(slots=True)
class PeerAnswer:
    """The answer of one peer.

    Args:
        name: The peer's.
        step: The delegation, as a step of this agent's.
        run: The run that it is part of.
    """

    name: str
    step: Step
    run: str
    _texts: list[str] = field(default_factory=list)
    _finish: str = ""
    _kept: int = 0

    async def read(self, response: aiohttp.ClientResponse) -> Json:
        """Read a response to its end.

        Raises:
            ToolFailed: It is no answer.
        """
        try:
            if response.status == 200 and response.content_type == _STREAM:
                return await self._stream(response)
            body = b""
            async for data in response.content.iter_any():
                body += data
                self._check(len(body))
        except (aiohttp.ClientError, OSError) as error:
            raise ToolFailed(self._broken(f"the connection was lost ({error})")) from error
        return self._whole(response.status, body)

    async def _stream(self, response: aiohttp.ClientResponse) -> Json:
        pending = b""
        async for data in response.content.iter_any():
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data:") and (text := line[5:].strip()) != b"[DONE]":
                    await self._event(text)
            # What is kept is bounded. Steps that are passed up are not, and a long answer of a
            # peer's peer has many: a short summary of it was refused for their sake.
            self._check(len(pending) + self._kept)
        if not self._finish:
            raise ToolFailed(self._broken("its answer broke off"))
        return self._result()

    async def _event(self, data: bytes) -> None:
        try:
            event: Any = from_json(data)
        except ValueError:
            return
        if not isinstance(event, dict):
            return
        if isinstance(error := event.get("error"), dict):
            raise ToolFailed(self._broken(str(error.get("message"))[:1000]))
        extension = event.get("kaos")
        if isinstance(extension, dict) and "event" in extension:
            told = Event.from_json(extension["event"])
            if told is not None and told.run == self.run:
                await self.step.relay(told)
            return
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        self._finish = str(choice.get("finish_reason") or self._finish)
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(text, str) and text:
            self._texts.append(text)
            self._kept += len(text)
            if self.step.detailed:
                await self.step.emit({"content": text})

    def _whole(self, status: int, body: bytes) -> Json:
        try:
            answer: Any = from_json(body)
        except ValueError:
            answer = None
        if status != 200:
            error = answer.get("error") if isinstance(answer, dict) else None
            said = error.get("message") if isinstance(error, dict) else f"HTTP {status}"
            raise ToolFailed(f"{self.name} failed: {said}")
        try:
            choice = answer["choices"][0]
            self._texts.append(choice["message"]["content"] or "")
            self._finish = str(choice.get("finish_reason") or "")
        except (LookupError, TypeError, AttributeError) as error:
            raise ToolFailed(f"{self.name} did not answer with a chat completion.") from error
        return self._result()

    def _result(self) -> Json:
        stopped = self._finish == "length"
        note = f"\n[{self.name} was stopped before it was done]" if stopped else ""
        return result(f"{''.join(self._texts)}{note}")

    def _broken(self, why: str) -> str:
        said = "".join(self._texts)
        return f"{self.name} failed: {why}" + (f"\nBefore that it said: {said}" if said else "")

    def _check(self, size: int) -> None:
        if size > MAX_ANSWER:
            raise ToolFailed(self._broken(f"its answer is larger than {MAX_ANSWER} bytes"))
