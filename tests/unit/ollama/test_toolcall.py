import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kaos.local.ollama.choice import Tool
from kaos.local.ollama.toolcall import constrain, copy_pattern, request

WORD = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1)


@given(st.lists(WORD, min_size=1, max_size=12), st.data())
def test_each_run_of_words_can_be_copied_and_nothing_else(words: list[str], data: Any) -> None:
    message = " ".join(words)
    pattern = copy_pattern(message)
    kept = re.sub(r'["\\]', "", message).split()
    if pattern is None:
        assert kept == []
        return
    start = data.draw(st.integers(0, len(kept) - 1))
    end = data.draw(st.integers(start, len(kept) - 1))
    units = [re.sub(r"^'|'(?=[.,!?;:]*$)", "", word) or word for word in kept[start : end + 1]]
    units[-1] = units[-1].rstrip(".,!?;:") or units[-1]
    assert re.fullmatch(pattern, " ".join(units))
    assert not re.fullmatch(pattern, " ".join(units) + " \x01")


def matches(message: str, text: str) -> bool:
    return bool(re.fullmatch(copy_pattern(message) or "", text))


def test_quotes_and_full_stops_stay_behind() -> None:
    assert matches("Please echo 'KAOS works'.", "KAOS works")
    assert matches("the sentence 'the cat sat'?", "the cat sat")
    assert matches("I don't know", "don't")
    assert matches('say "hi" now', "hi")
    assert matches("work out 40 / 8 or a-b", "40 / 8")
    assert copy_pattern(' \n"') is None


def test_a_long_message_is_taken_by_its_last_sentences() -> None:
    message = " ".join(f"This is sentence number {number}." for number in range(400))
    assert matches(message, "This is sentence number 398. This is sentence number 399")
    assert not matches(message, "number 399")
    assert not matches(message, "This is sentence number 0")
    pattern = copy_pattern(message)
    assert pattern is not None
    assert len(pattern) < 5000


def test_a_schema_becomes_small_and_finite() -> None:
    schema = {
        "$defs": {
            "Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}},
            "Colour": {"enum": ["red", "blue"], "title": "Colour"},
        },
        "type": "object",
        "properties": {
            "text": {"type": "string", "maxLength": 10_000, "title": "Text"},
            "colour": {"allOf": [{"$ref": "#/$defs/Colour"}]},
            "count": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "items": {"type": "string"}},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "day": {"type": "string", "format": "date"},
            "any": {},
            "optional": {"type": "string"},
        },
        "required": ["text", "colour", "count", "tags", "maybe", "day", "any"],
    }
    text = {"type": "string", "pattern": "^(a)$"}
    assert constrain(schema, "^(a)$") == {
        "type": "object",
        "properties": {
            "text": text,
            "colour": {"enum": ["red", "blue"]},
            "count": {"type": "integer", "minimum": 1},
            "tags": {"type": "array", "items": text, "minItems": 0, "maxItems": 4},
            "maybe": {"anyOf": [text, {"type": "null"}]},
            "day": {"type": "string", "format": "date"},
            "any": text,
        },
        "required": ["text", "colour", "count", "tags", "maybe", "day", "any"],
        "additionalProperties": False,
    }
    endless = {"$ref": "#/$defs/Node", "$defs": schema["$defs"], "properties": {"n": {"$ref": "#"}}}
    assert len(json.dumps(constrain(endless, None))) < 2000


def test_schemas_that_are_none() -> None:
    empty = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    assert constrain({}, "^(a)$") == empty
    assert constrain(None, "^(a)$") == empty
    assert constrain({"properties": {"x": True}, "required": ["y"]}, None)["properties"] == {
        "x": {"type": "string"}
    }


def test_the_request_offers_exactly_the_given_tools() -> None:
    tools = [Tool("a", "Does a.", {}), Tool("b", "Does b.", {})]
    body = request("Be kind.", tools, "please do a")
    schema = body["response_format"]["json_schema"]["schema"]
    assert [option["properties"]["name"] for option in schema["oneOf"]] == [
        {"const": "a"},
        {"const": "b"},
    ]
    assert body["messages"][0]["content"].startswith("Be kind.")
    assert body["messages"][-1] == {"role": "user", "content": "please do a"}
