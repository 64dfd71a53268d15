"""Admission webhooks: questions and answers."""

import base64
import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from kaos.runtime.webhooks import Admission, Denied
from kaos.runtime.webhooks.review import answer, difference


def question(new: Any = None, old: Any = None, **more: Any) -> bytes:
    request = {"uid": "u1", "operation": "UPDATE", "namespace": "ns", "name": "a"}
    request |= {"object": new, "oldObject": old, "userInfo": {"username": "me"}} | more
    body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    return json.dumps(body).encode()


async def ask(handler: Any, body: bytes, *, defaults: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await answer(body, handler, defaults=defaults))
    assert told["kind"] == "AdmissionReview"
    response: dict[str, Any] = told["response"]
    assert response["uid"] == "u1"
    return response


async def test_a_validating_handler_sees_everything_and_may_refuse() -> None:
    async def immutable(asked: Admission) -> None:
        assert (asked.key.name, asked.operation, asked.user["username"]) == ("a", "UPDATE", "me")
        asked.warnings.append("size is deprecated")
        if asked.old["spec"] != asked.object["spec"]:
            raise Denied("spec cannot change", fields={"spec.n": "is immutable"})

    same = {"spec": {"n": 1}}
    assert await ask(immutable, question(same, same)) == {
        "uid": "u1",
        "allowed": True,
        "warnings": ["size is deprecated"],
    }
    refused = await ask(immutable, question({"spec": {"n": 2}}, same))
    assert not refused["allowed"]
    assert refused["status"]["code"] == 422
    assert refused["status"]["details"]["causes"][0]["field"] == "spec.n"


async def test_a_defaulting_handler_answers_with_what_it_changed() -> None:
    async def defaults(asked: Admission) -> None:
        asked.object["spec"].setdefault("replicas", 1)
        asked.object["metadata"].pop("junk")
        asked.object["metadata"]["labels"]["example.com/by"] = "us"

    new = {"spec": {}, "metadata": {"junk": 1, "labels": {"example.com/by": "them"}}}
    told = await ask(defaults, question(new), defaults=True)
    assert told["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(told["patch"])) == [
        {"op": "add", "path": "/spec/replicas", "value": 1},
        {"op": "remove", "path": "/metadata/junk"},
        {"op": "replace", "path": "/metadata/labels/example.com~1by", "value": "us"},
    ]


async def test_a_validating_handler_cannot_change_anything() -> None:
    async def change(asked: Admission) -> None:
        asked.object["spec"] = 7

    assert "patch" not in await ask(change, question({"spec": 1}))


async def test_a_model_that_does_not_fit_is_refused_by_field() -> None:
    class Spec(BaseModel):
        replicas: int = Field(ge=0)

    class Pot(BaseModel):
        spec: Spec

    async def check(asked: Admission) -> None:
        asked.as_model(Pot)

    told = await ask(check, question({"spec": {"replicas": -1}}))
    assert told["status"]["details"]["causes"][0]["field"] == "spec.replicas"


async def test_a_handler_that_fails_never_says_yes() -> None:
    async def broken(asked: Admission) -> None:
        raise KeyError("secret detail")

    failures: list[int] = []
    await answer(question({}), broken, defaults=False, failed=lambda: failures.append(1))
    assert failures == [1]
    told = await ask(broken, question({}))
    assert (told["allowed"], told["status"]["code"]) == (False, 500)
    assert "secret detail" not in told["status"]["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{}", question().replace(b"/v1", b"/v1beta1"), b'{"apiVersion": 1}']
)
async def test_what_is_no_question_is_refused(body: bytes) -> None:
    async def never(asked: Admission) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=r"AdmissionReview|expected"):
        await answer(body, never, defaults=False)


def test_a_difference_knows_a_number_from_a_boolean() -> None:
    assert difference({"a": 1}, {"a": True}) == [{"op": "replace", "path": "/a", "value": True}]
    assert difference({"a": [1]}, {"a": [1]}) == []
