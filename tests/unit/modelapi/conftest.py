"""A stand-in for LiteLLM, which takes seconds to import and is not in every environment."""

import sys
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest


class Answer:
    """As LiteLLM's answers: pydantic models."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, **_: Any) -> dict[str, Any]:
        return self.fields


class ProviderError(Exception):
    status_code = 429


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = types.ModuleType("litellm")
    module.__spec__ = types.SimpleNamespace()
    module.asked = []

    async def acompletion(**arguments: Any) -> Any:
        module.asked.append(arguments)
        if arguments["messages"] == "refuse":
            raise ProviderError("no quota\nleft")

        async def chunks() -> AsyncIterator[Answer]:
            yield Answer(model="x", delta=1)
            if arguments["messages"] == "break":
                raise ProviderError("broke")

        return chunks() if arguments.get("stream") else Answer(model="x", choices=[])

    class Router:
        def __init__(self, **arguments: Any) -> None:
            module.router = arguments
            self.acompletion = acompletion

    module.acompletion = acompletion
    module.Router = Router
    monkeypatch.setitem(sys.modules, "litellm", module)
    return module
