"""Structural schemas of pydantic models."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from kaos.schema import structural


class Port(BaseModel):
    model_config = ConfigDict(extra="forbid")

    number: int = Field(default=80, ge=1, le=65535, description="The port.")


class Spec(BaseModel):
    """What is wanted."""

    name: str
    main: Port = Port()
    others: list[Port] = []
    labels: dict[str, str] = {}
    note: str | None = None
    anything: Any = None
    free: dict[str, Any] = {}


class Limits(BaseModel):
    above: int = Field(gt=0)
    below: float | None = Field(None, lt=1.5)
    unique: set[str] = Field(default_factory=set, examples=[["a"]])
    named: dict[Annotated[str, Field(pattern="^a", max_length=3)], int] = Field({}, deprecated=True)


class Either(BaseModel):
    value: int | str


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel):
    one: Annotated[Cat | Dog, Field(discriminator="kind")]


class Pair(BaseModel):
    both: tuple[int, str]


class Tree(BaseModel):
    children: list["Tree"] = []


def keys(node: Any) -> set[str]:
    if isinstance(node, dict):
        return set(node).union(*map(keys, node.values()))
    return set().union(*map(keys, node)) if isinstance(node, list) else set()


def test_references_titles_and_nulls_are_gone() -> None:
    schema = structural(Spec)
    assert not keys(schema) & {"$ref", "$defs", "title", "anyOf"}
    port = {
        "type": "object",
        "properties": {
            "number": {
                "type": "integer",
                "minimum": 1,
                "maximum": 65535,
                "default": 80,
                "description": "The port.",
            }
        },
    }
    properties = schema["properties"]
    assert properties["others"] == {"type": "array", "items": port, "default": []}
    assert properties["main"] == {**port, "default": {"number": 80}}
    assert properties["note"] == {"type": "string"}
    assert properties["labels"]["additionalProperties"] == {"type": "string"}
    assert schema["required"] == ["name"]
    assert schema["description"] == "What is wanted."


def test_what_may_be_anything_is_kept_by_the_server() -> None:
    properties = structural(Spec)["properties"]
    assert properties["anything"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert properties["free"] == {
        "type": "object",
        "default": {},
        "x-kubernetes-preserve-unknown-fields": True,
    }


def test_limits_are_told_in_the_words_that_api_servers_know() -> None:
    """A kind with `exclusiveMinimum: 0` was refused by real ones, which want a flag there."""
    properties = structural(Limits)["properties"]
    assert properties["above"] == {"type": "integer", "minimum": 0, "exclusiveMinimum": True}
    assert properties["below"] == {"type": "number", "maximum": 1.5, "exclusiveMaximum": True}
    unique = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    assert properties["unique"] == unique
    named = {"type": "object", "additionalProperties": {"type": "integer"}, "default": {}}
    assert properties["named"] == named


def test_the_only_value_of_a_literal_is_the_only_one_that_is_taken() -> None:
    """Any text was, and the reconciler failed at it."""

    class One(BaseModel):
        mode: Literal["web"]

    assert structural(One)["properties"]["mode"] == {"type": "string", "enum": ["web"]}


def test_a_secret_text_is_a_text() -> None:
    """`writeOnly` is no word of a definition, and server-side apply refuses one that has it."""

    class Login(BaseModel):
        password: SecretStr

    wanted = {"type": "string", "format": "password"}
    assert structural(Login)["properties"]["password"] == wanted


def test_what_has_no_structural_schema_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"Pet\.one: a union"):
        structural(Pet)
    with pytest.raises(ValueError, match=r"Pair\.both: a tuple"):
        structural(Pair)
    with pytest.raises(ValueError, match=r"Either\.value: a union"):
        structural(Either)
    with pytest.raises(ValueError, match="contains itself"):
        structural(Tree)
