"""A tool call from a model that never learned one: by grammar.

Guarantees: the answer is `{"name": …, "arguments": …}` with one of the given names and arguments
that fit its schema, because llama.cpp is given a grammar that allows nothing else.

Free text in the arguments is a run of words of the user's own message (`copy_pattern`). Left
free, the 135M model looped ("search/search/search") or copied the examples of its prompt in 8
of 24 cases; choosing where the words start and end is what it can do: 22 of 24 were what a
person would have written, the other two parts of it.

Does not: more than one call an answer, or keep optional arguments when there are required ones.
"""

import re
from collections.abc import Sequence
from typing import Any

from kaos.local.ollama.choice import Tool

MAX_TOKENS = 384
_MAX_WORDS = 40
_MAX_SENTENCES = 10
_MAX_ITEMS = 4
_MAX_DEPTH = 8
_FORMATS = ("date", "time", "date-time", "uuid")
_KEPT = ("type", "enum", "const", "format", "minimum", "maximum")
_EXAMPLES = (
    ("Please search for the best pizza in town.", "search", "query", "the best pizza in town"),
    ("Use the note tool to write: buy some milk", "note", "text", "buy some milk"),
)


def request(system: str, tools: Sequence[Tool], message: str) -> dict[str, Any]:
    """The chat completion to ask llama.cpp for."""
    described = "\n".join(
        f"- {tool.name}({', '.join(tool.parameters.get('properties') or {})}): {tool.description}"
        for tool in tools
    )
    examples = [
        turn
        for said, name, argument, value in _EXAMPLES
        for turn in (
            {"role": "user", "content": said},
            {
                "role": "assistant",
                "content": f'{{"name": "{name}", "arguments": {{"{argument}": "{value}"}}}}',
            },
        )
    ]
    instructions = (
        f"{system}\nYou answer by calling a tool, in JSON. The arguments are copied from the "
        f"user's message.\nThe tools:\n{described}"
    )
    return {
        "messages": [
            {"role": "system", "content": instructions.strip()},
            *examples,
            {"role": "user", "content": message},
        ],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "call", "schema": _schema(tools, copy_pattern(message))},
        },
    }


def _schema(tools: Sequence[Tool], pattern: str | None) -> dict[str, Any]:
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool.name},
                    "arguments": constrain(tool.parameters, pattern),
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
    }


def copy_pattern(message: str) -> str | None:
    """A regular expression that matches each run of words in a message, or None without words.

    A long message is taken by its sentences instead, and of these the last ones.
    """
    clean = "".join(char if char.isprintable() else " " for char in message)
    # Double quotes and backslashes would have to be escaped for JSON and for the grammar in turn.
    words = re.sub(r'["\\]', "", clean).split()
    # Quotes around words are not meant to be copied; inside them (don't) they are.
    units = [re.sub(r"^'|'(?=[.,!?;:]*$)", "", word) or word for word in words]
    if len(units) > _MAX_WORDS:
        units = re.split(r"(?<=[.!?:])\s", " ".join(units))[-_MAX_SENTENCES:]
    # From the last word back: a run that starts here ends here, or goes on with the next.
    runs: list[str] = []
    for unit in reversed(units):
        last = _escape(unit.rstrip(".,!?;:") or unit)
        runs.append(f"({last}|{_escape(unit)} {runs[-1]})" if runs else last)
    return f"^({'|'.join(reversed(runs))})$" if runs else None


def constrain(schema: Any, pattern: str | None) -> dict[str, Any]:
    """A schema reduced to what makes a small and finite grammar.

    References are inlined, free strings get the pattern, objects have no further properties,
    lists are short.
    """
    root = schema if isinstance(schema, dict) else {}
    return _Constrain(root, pattern).object(root, 0)


class _Constrain:
    def __init__(self, root: dict[str, Any], pattern: str | None) -> None:
        self._root = root
        self._string = {"type": "string", **({"pattern": pattern} if pattern else {})}

    def any(self, schema: Any, depth: int) -> dict[str, Any]:
        """Any schema; what is unknown or nested too deeply becomes a string."""
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return self._string
        if "$ref" in schema:
            return self.any(self._resolve(str(schema["$ref"])), depth + 1)
        if len(schema.get("allOf") or ()) == 1:
            return self.any(schema["allOf"][0], depth + 1)
        if options := schema.get("anyOf") or schema.get("oneOf"):
            return {"anyOf": [self.any(option, depth + 1) for option in options]}
        kind = schema.get("type")
        if "enum" in schema or "const" in schema or isinstance(kind, list):
            return {key: schema[key] for key in _KEPT if key in schema}
        if kind == "object" or "properties" in schema:
            return self.object(schema, depth)
        if kind == "array":
            items = self.any(schema.get("items"), depth + 1)
            most = min(int(schema.get("maxItems") or _MAX_ITEMS), _MAX_ITEMS)
            least = min(int(schema.get("minItems") or 0), most)
            return {"type": "array", "items": items, "minItems": least, "maxItems": most}
        if kind in ("integer", "number", "boolean", "null") or schema.get("format") in _FORMATS:
            return {key: schema[key] for key in _KEPT if key in schema}
        return self._string

    def object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """An object: the required properties, or all if none is required."""
        properties = schema.get("properties") or {}
        required = [name for name in schema.get("required") or () if name in properties]
        return {
            "type": "object",
            "properties": {
                name: self.any(properties[name], depth + 1) for name in required or properties
            },
            "required": required,
            "additionalProperties": False,
        }

    def _resolve(self, reference: str) -> Any:
        found: Any = self._root
        for part in reference.removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        return found


def _escape(text: str) -> str:
    return re.sub(r"([.^$*+?()\[\]{}|])", r"\\\1", text)
