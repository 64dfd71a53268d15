"""Users of an agent: each asks for something of its own and looks at every piece of the answer."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Json = dict[str, Any]


class Broken(Exception):  # noqa: N818
    """An answer that is not what it should be."""


@dataclass
class User:
    """Somebody with a connection of their own.

    Args:
        http: The session to use.
        url: The agent's.
        begun: Called when the first piece of an answer came.
    """

    http: aiohttp.ClientSession
    url: str
    begun: Callable[[], object] = lambda: None
    headers: dict[str, str] = field(default_factory=dict)

    async def stream(self, text: str) -> str:
        """Ask for a stream; returns its text.

        Raises:
            Broken: It is not whole.
        """
        said, finish, last = "", None, ""
        async with self.http.post(self._path, json=body(text, stream=True)) as answer:
            if answer.status != 200:
                raise Broken(f"HTTP {answer.status}: {await answer.text()}")
            async for line in answer.content:
                if not line.startswith(b"data: "):
                    continue
                last = line[6:].decode().strip()
                if last == "[DONE]":
                    break
                event = json.loads(last)
                if "error" in event:
                    raise Broken(str(event["error"]))
                choice = event["choices"][0]
                said += choice["delta"].get("content") or ""
                finish = choice["finish_reason"] or finish
                self.begun()
        if (finish, last) != ("stop", "[DONE]"):
            raise Broken(f"it ended with {finish} and {last!r}")
        return said

    async def whole(self, text: str) -> str:
        """Ask for a whole answer.

        Raises:
            Broken: There was none.
        """
        async with self.http.post(self._path, json=body(text), headers=self.headers) as answer:
            if answer.status != 200:
                raise Broken(f"HTTP {answer.status}: {await answer.text()}")
            found: str = (await answer.json())["choices"][0]["message"]["content"]
            return found

    @property
    def _path(self) -> str:
        return f"{self.url}/v1/chat/completions"


def body(text: str, **more: Any) -> Json:
    """Make a request."""
    return {"model": "agent", "messages": [{"role": "user", "content": text}], **more}
