"""Objects and pages: what is kept, what is not, and what a broken one gives."""

import json
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from kaos.runtime import CONFIG_MAP, POD, Gone, Invalid, Object, Request, ResourceType
from kaos.runtime.codec import decode_page, encode, events_decoder, version_number
from kaos.runtime.errors import AlreadyExists, ApiError, Cause, Conflict, from_status

BODY: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "a",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 3,
        "labels": {"app": "x"},
        "finalizers": ["x/y"],
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "X", "name": "o", "uid": "1"},
            {"apiVersion": "v1", "kind": "Y", "name": "p", "uid": "2", "controller": True},
        ],
    },
    "spec": {"replicas": 2},
    "status": {"ready": True},
}


def managed(body: dict[str, Any]) -> dict[str, Any]:
    fields = [{"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]
    return {**body, "metadata": {**body["metadata"], "managedFields": fields}}


def test_an_object_is_what_was_sent_without_managed_fields() -> None:
    obj = Object.from_dict(managed(BODY))
    assert obj.to_dict() == BODY
    assert obj.key == Request("ns", "a")
    assert (obj.api_version, obj.kind, obj.uid, obj.version) == ("apps/v1", "Deployment", "u", 7)
    assert obj.metadata.controller is not None
    assert obj.metadata.controller.kind == "Y"
    assert not obj.deleting


def test_what_a_reader_changes_changes_nothing_else() -> None:
    """Shared cached objects that a stray assignment corrupts are Go's classic."""
    obj = Object.from_dict(BODY)
    obj.spec["replicas"] = 9
    obj.to_dict()["metadata"]["labels"]["app"] = "changed"
    assert obj.spec == {"replicas": 2}
    assert obj.metadata.labels == {"app": "x"}
    with pytest.raises(AttributeError):
        obj.metadata.name = "b"  # type: ignore[misc]


def test_absent_parts_are_empty() -> None:
    obj = Object.from_dict({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}})
    assert obj.spec == {}
    assert obj.status == {}
    assert obj.get("data") is None
    assert obj.raw("data") == b""


def test_nulls_where_others_leave_a_field_out() -> None:
    metadata = {"name": "a", "labels": None, "creationTimestamp": None, "generation": 2}
    obj = Object.from_dict({"apiVersion": "v1", "kind": "X", "metadata": metadata})
    assert obj.metadata.labels == {}
    assert obj.metadata.generation == 2


def test_models_are_built_at_the_edge() -> None:
    class Spec(BaseModel):
        replicas: int

    class Deployment(BaseModel):
        spec: Spec

    assert Object.from_dict(BODY).as_model(Deployment).spec.replicas == 2


def test_items_of_a_list_get_the_kind_they_are_sent_without() -> None:
    items = [{"metadata": {"name": "a"}, "data": {"k": "v"}}]
    metadata = {"resourceVersion": "9", "continue": "token"}
    body = json.dumps({"kind": "ConfigMapList", "metadata": metadata, "items": items}).encode()
    page = decode_page(body, CONFIG_MAP)
    assert (page.resource_version, page.continue_token) == ("9", "token")
    assert (page.items[0].api_version, page.items[0].kind) == ("v1", "ConfigMap")
    assert decode_page(b'{"metadata":{"resourceVersion":"1"},"items":null}', CONFIG_MAP).items == []


def test_a_field_does_not_keep_its_whole_page_alive() -> None:
    """msgspec's Raw is a view: 500 objects' bytes would live as long as one of them."""
    items = [{"metadata": {"name": "a"}, "data": {"k": "v"}}]
    page = decode_page(json.dumps({"metadata": {}, "items": items}).encode(), CONFIG_MAP)
    assert type(page.items[0].raw("data")) is bytes
    assert page.items[0].raw("data") == b'{"k": "v"}'


def test_watch_lines() -> None:
    decode = events_decoder(CONFIG_MAP)
    line = json.dumps({"type": "ADDED", "object": managed(BODY)}).encode() + b"\n"
    (event,) = decode(line)
    assert event.obj is not None
    assert event.obj.name == "a"
    assert event.obj.kind == "ConfigMap"  # what was watched, one string for all
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    (event,) = decode(json.dumps({"type": "ERROR", "object": status}).encode())
    assert isinstance(event.error, Gone)
    with pytest.raises(msgspec.DecodeError):
        list(decode(b'{"type":"ADDED","obj'))


SPEC = {"metadata": {"name": "s"}, "spec": {}, "status": {"a": 1}}
DATA = {"metadata": {"name": "d"}, "data": {"k": "v"}}
STATUS = {"kind": "Status", "status": "Failure"}  # it could pass for an object


@pytest.mark.parametrize("bodies", [[SPEC, SPEC], [SPEC, DATA], [DATA, SPEC, SPEC], []])
def test_watch_lines_that_come_together(bodies: list[dict[str, object]]) -> None:
    events = [encode({"type": "MODIFIED", "object": body}) for body in bodies]
    found = [e.obj.to_dict() for e in events_decoder(POD)(b"\n\n".join(events) + b"\n") if e.obj]
    assert [{k: body[k] for k in body if k in ("spec", "status", "data")} for body in found] == [
        {k: body[k] for k in body if k != "metadata"} for body in bodies
    ]


def test_lines_before_one_that_is_broken_or_an_error_count() -> None:
    good = encode({"type": "MODIFIED", "object": SPEC})
    events = events_decoder(POD)(good + b"\n" + b'{"type":}' + b"\n")
    assert next(events).type == "MODIFIED"
    with pytest.raises(msgspec.DecodeError):
        next(events)
    error = encode({"type": "ERROR", "object": STATUS})
    assert [e.error is None for e in events_decoder(POD)(good + b"\n" + error)] == [True, False]


def test_errors_are_told_by_class_and_in_the_servers_words() -> None:
    causes = [{"reason": "FieldValueInvalid", "message": "too small", "field": "spec.n"}]
    body = {"reason": "Invalid", "message": "n is too small", "details": {"causes": causes}}
    error = from_status(422, json.dumps(body).encode(), request="POST /x")
    assert isinstance(error, Invalid)
    assert str(error) == "POST /x: 422 n is too small"
    assert error.causes == [Cause("FieldValueInvalid", "too small", "spec.n")]
    assert isinstance(from_status(409, b'{"reason":"AlreadyExists"}'), AlreadyExists)
    assert isinstance(from_status(409, b'{"reason":"Conflict"}'), Conflict)
    assert isinstance(from_status(0, b'{"code":410}'), Gone)
    assert from_status(429, b'{"details":{"retryAfterSeconds":3}}').retry_after == 3


def test_a_proxys_error_page_is_an_error_too() -> None:
    """kr8s: a Status without a message was a KeyError."""
    error = from_status(502, b"<html>Bad Gateway</html>")
    assert type(error) is ApiError
    assert "Bad Gateway" in str(error)
    assert str(from_status(500, b"{}")) == "500 no message"


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), ("", -1), ("x1", -1), ("-3", -1), ("9" * 30, int("9" * 30))]
)
def test_versions_as_numbers(text: str, number: int) -> None:
    assert version_number(text) == number


def test_paths() -> None:
    thing = ResourceType("example.com", "v1", "Thing", "things")
    assert thing.path() == "/apis/example.com/v1/things"
    assert thing.path("ns", "a", "status") == "/apis/example.com/v1/namespaces/ns/things/a/status"
    assert CONFIG_MAP.path("ns") == "/api/v1/namespaces/ns/configmaps"
    assert thing.path("../x", "a/b") == "/apis/example.com/v1/namespaces/..%2Fx/things/a%2Fb"


def test_resource_types_of_classes() -> None:
    class Thing:
        GROUP, VERSION, KIND, PLURAL, NAMESPACED = "g", "v1", "Thing", "things", False

    assert ResourceType.of(Thing) == ResourceType("g", "v1", "Thing", "things", namespaced=False)
    with pytest.raises(TypeError, match="GROUP, VERSION, KIND and PLURAL"):
        ResourceType.of(int)


@pytest.mark.parametrize(
    "rest",
    [
        {"spec": {"a": 1}, "status": {"b": None}},
        {"spec": None},
        {"data": {"k": "v"}, "spec": {"a": 1}},
        {},
    ],
    ids=["usual", "null", "another field", "bare"],
)
@pytest.mark.parametrize("metadata", [{"name": "n"}, {"name": "n", "labels": None}])
def test_one_pass_and_the_general_way_decode_alike(
    rest: dict[str, object], metadata: dict[str, object]
) -> None:
    body = {"apiVersion": POD.api_version, "kind": POD.kind, "metadata": metadata, **rest}
    general = Object.from_dict(body)
    (event,) = events_decoder(POD)(encode({"type": "MODIFIED", "object": body}))
    listed = decode_page(encode({"metadata": {"resourceVersion": "7"}, "items": [body]}), POD)
    for obj in (event.obj, listed.items[0]):
        assert obj is not None
        assert (obj.metadata, obj.fields()) == (general.metadata, general.fields())
        assert (obj.api_version, obj.kind) == ("v1", "Pod")
