"""Tool calls that a model writes into its text, found as the text arrives.

Guarantees: what is shown and what is called do not depend on how the text was cut into pieces
(a property test holds it to that); no part of a call is ever shown, and everything that turns
out to be none is; JSON is read by a JSON parser, so a closing mark inside an argument ends
nothing. An earlier agent looked for one form with a regular expression, found the first block
only, and showed the user whatever was written a little differently.

The forms: `<tool_call>…</tool_call>` (Qwen, Hermes, and what `kaos.agent.text_tools` asks for),
`<function_call>`, a block fenced as `tool_call`, `[TOOL_CALLS]` (Mistral), `<|python_tag|>`
(Llama): whatever follows these is meant as a call, and one that cannot be read is a call all
the same, for the model to be told. A fenced block of JSON, or an answer that begins with JSON,
is a call only if it names a tool there is.

Decision: text after a call is dropped. The model wrote it without the result, and small models
make the result up.
"""

import re
import secrets
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from pydantic_core import from_json, to_json

from kaos.agent.openai import Json

INVALID = "invalid_tool_call"
MAX_CALL = 256 * 1024
_FENCE = "```"
_CLOSERS = {
    "<tool_call>": "</tool_call>",
    "<function_call>": "</function_call>",
    "[TOOL_CALLS]": "",
    "<|python_tag|>": "<|eom_id|>",
}
_OPENERS = (*_CLOSERS, _FENCE)
_OPENER = re.compile("|".join(re.escape(opener) for opener in _OPENERS))
_MARKS = re.compile("|".join(re.escape(opener) for opener in _CLOSERS))
_EXPLICIT_FENCES = ("tool_call", "tool_calls", "function_call")
_IMPLICIT_FENCES = ("", "json")
_FENCE_WORD = re.compile(r"([A-Za-z_]{0,20})([^\S\n]*\n|\s|(?=[\[{]))")
_FIRST_KEY = re.compile(r'\s*\[?\s*\{\s*"([^"\\]*)"')
_FIRST_KEY_SO_FAR = re.compile(r'\s*(\[\s*)?(\{\s*("[^"\\]{0,20})?)?')
_KEYS = frozenset({"name", "tool", "function", "arguments", "parameters", "input", "type", "id"})
_NAME = re.compile(r'"(?:name|tool)"\s*:\s*"([^"\\]{1,128})"')

_State = Literal["beginning", "text", "explicit", "implicit"]


class CallParser:
    """Reads one answer.

    Args:
        names: The tools there are.
        marks_only: Whether only the marks of models count, and JSON and fences are prose. For
            answers of models that call natively: they may well show somebody a call.
    """

    def __init__(self, names: AbstractSet[str], *, marks_only: bool = False) -> None:
        self.calls: list[Json] = []
        self._names = names
        self._state: _State = "text" if marks_only else "beginning"
        self._openers = tuple(_CLOSERS) if marks_only else _OPENERS
        self._opener_in = _MARKS if marks_only else _OPENER
        self._opener = ""
        self._closer = ""
        self._held = ""

    def feed(self, text: str) -> str:
        """Take in a piece of the answer and return what of it can be shown now."""
        self._held += text
        shown: list[str] = []
        while self._advance(shown, last=False):
            pass
        return "".join(shown)

    def end(self, finish_reason: str) -> str:
        """Take in the end of the answer and return what is left to show."""
        shown: list[str] = []
        while self._advance(shown, last=True):
            pass
        if self._state == "explicit":
            # A model's end mark often stands for the closing one; a cut-off call is none.
            if finish_reason != "length" or self._decoded(self._held):
                self._take(self._held)
        else:
            self._show(shown, self._opener + self._held)
        return "".join(shown)

    def _advance(self, shown: list[str], *, last: bool) -> bool:
        """Go one state further; False when more text is needed for it."""
        match self._state:
            case "beginning":
                return self._begin(last)
            case "text":
                return self._text(shown, last)
            case "explicit":
                return self._explicit(last)
            case "implicit":
                return self._implicit(shown, last)

    def _begin(self, last: bool) -> bool:
        start = self._held.lstrip()
        if not start:
            return False
        if start[0] in "{[" and not "[TOOL_CALLS]".startswith(start[:12]):
            self._state = "implicit"
        elif start[0] == "[" and len(start) < 12 and not last:
            return False
        else:
            self._state = "text"
        return True

    def _text(self, shown: list[str], last: bool) -> bool:
        found = self._opener_in.search(self._held)
        if found is None:
            keep = 0 if last else _prefix_at_end(self._held, self._openers)
            cut = len(self._held) - keep
            self._show(shown, self._held[:cut])
            self._held = self._held[cut:]
            return False
        opener, rest = found.group(), self._held[found.end() :]
        if opener != _FENCE:
            self._enter("explicit", found.start(), opener, rest, _CLOSERS[opener], shown)
            return True
        word = _FENCE_WORD.match(rest)
        if word is None and len(rest) <= 20 and not last and re.fullmatch(r"[A-Za-z_]*", rest):
            self._hold_from(found.start(), shown)
            return False
        language = word.group(1) if word else None
        if word and language in _EXPLICIT_FENCES:
            after = rest[word.end() :]
            self._enter("explicit", found.start(), opener, after, _FENCE, shown)
        elif word and language in _IMPLICIT_FENCES:
            opener += word.group()
            self._enter("implicit", found.start(), opener, rest[word.end() :], _FENCE, shown)
        else:
            self._show(shown, self._held[: found.end()])
            self._held = rest
        return True

    def _enter(
        self,
        state: _State,
        at: int,
        opener: str,
        rest: str,
        closer: str,
        shown: list[str],
    ) -> None:
        self._hold_from(at, shown)
        self._state, self._opener, self._closer, self._held = state, opener, closer, rest

    def _hold_from(self, at: int, shown: list[str]) -> None:
        self._show(shown, self._held[:at])
        self._held = self._held[at:]

    def _explicit(self, last: bool) -> bool:
        body = self._held
        start = len(body) - len(body.lstrip())
        if start == len(body):
            return False
        if body[start] not in "{[":
            return self._unreadable(last)
        end = _end_of_json(body, start)
        if end is None:
            return len(body) > MAX_CALL and self._unreadable(last=True)
        rest = body[end:].lstrip()
        if self._closer and self._closer.startswith(rest[: len(self._closer)]):
            if len(rest) < len(self._closer) and not last:
                return False  # the closing mark may be on its way
            rest = rest[len(self._closer) :]
        elif self._closer and rest[:1] in ("{", "["):
            self._take(body[start:end])
            self._held = rest  # several calls in one block
            return True
        self._take(body[start:end])
        self._leave(rest)
        return True

    def _unreadable(self, last: bool) -> bool:
        """What follows the opener is no JSON: a call that cannot be read, up to its end."""
        at = self._held.find(self._closer) if self._closer else -1
        if at < 0:
            if not last and len(self._held) <= MAX_CALL:
                return False
            at = len(self._held)
        self._take(self._held[:at])
        self._leave(self._held[at + len(self._closer) :])
        return True

    def _implicit(self, shown: list[str], last: bool) -> bool:
        """JSON that may be a call; it is shown as soon as it cannot be one."""
        key = _FIRST_KEY.match(self._held)
        if key is None:
            possible = _FIRST_KEY_SO_FAR.fullmatch(self._held) is not None
        else:
            possible = key.group(1) in _KEYS
        start = len(self._held) - len(self._held.lstrip())
        end = _end_of_json(self._held, start) if possible and key else None
        if possible and end is None and len(self._held) <= MAX_CALL:
            return False
        calls = self._decoded(self._held[:end]) if end is not None else []
        if calls and all(call["function"]["name"] in self._names for call in calls):
            rest = self._held[end:].lstrip()
            if len(rest) < len(self._closer) and self._closer.startswith(rest) and not last:
                return False  # the closing mark may be on its way
            self.calls += calls
            self._leave(rest.removeprefix(self._closer))
        else:
            self._show(shown, self._opener)
            self._leave(self._held)
        return True

    def _show(self, shown: list[str], text: str) -> None:
        if not self.calls:
            shown.append(text)

    def _leave(self, rest: str) -> None:
        self._state, self._opener, self._closer, self._held = "text", "", "", rest

    def _take(self, body: str) -> None:
        if not body.strip():
            return
        if calls := self._decoded(body):
            self.calls += calls
            return
        name = _NAME.search(body)
        self.calls.append(_call(name.group(1) if name else INVALID, body.strip()[:2000]))

    def _decoded(self, body: str) -> list[Json]:
        try:
            value = from_json(body.strip(), allow_partial="off")
        except ValueError:
            return []
        values = value if isinstance(value, list) else [value]
        calls = [_call_of(one) for one in values]
        return [call for call in calls if call] if all(calls) else []


def _call_of(value: Any) -> Json | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    value = inner if isinstance(inner, dict) else value
    name = value.get("name") or value.get("tool") or value.get("function")
    if not isinstance(name, str):
        return None
    given = (value[key] for key in ("arguments", "parameters", "input") if key in value)
    arguments = next(given, None) or {}
    return _call(name, arguments if isinstance(arguments, str) else to_json(arguments).decode())


def _call(name: str, arguments: str) -> Json:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _prefix_at_end(text: str, openers: tuple[str, ...]) -> int:
    """Return how much of the end could be the beginning of an opener."""
    longest = max(len(opener) for opener in openers) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(opener.startswith(text[-size:]) for opener in openers):
            return size
    return 0


_MARK = re.compile(r'["{}\[\]]')
_STRING_END = re.compile(r'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def _end_of_json(text: str, start: int) -> int | None:
    """Return where the value that starts here ends; None if it does not yet."""
    depth, at = 0, start
    while found := _MARK.search(text, at):
        mark, at = found.group(), found.end()
        if mark == '"':
            closing = _STRING_END.match(text, at)
            if closing is None:
                return None
            at = closing.end()
        elif mark in "{[":
            depth += 1
        else:
            depth -= 1
            if depth <= 0:
                return at
    return None
