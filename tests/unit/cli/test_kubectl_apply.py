"""Applying what `kubectl apply` applies too."""

import json
from typing import Any

from kaos.cli.apply import apply_all
from kaos.cli.kubectl_apply import LAST_APPLIED, remembered, taken_over
from kaos.cli.manifests import parse
from kaos.runtime import CONFIG_MAP, Client
from kaos.testing.inprocess import InProcess

TEXT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"


async def apply(client: Client, data: str) -> dict[str, Any]:
    (made,) = await apply_all(client, parse("f", f"{TEXT}data: {data}\n"))
    return dict(made.get("data"))


async def test_what_kubectl_applied_and_the_file_has_lost_is_lost(
    kaos_in_process: InProcess,
) -> None:
    """Each kept in silence what the other had set."""
    client = Client(kaos_in_process, field_manager="kaos-cli")
    kubectl = Client(kaos_in_process, field_manager="kubectl-client-side-apply")
    other = Client(kaos_in_process, field_manager="kubectl-edit")
    await kubectl.create(CONFIG_MAP.body("a", "default", data={"k": "1", "gone": "1"}))
    await other.patch(CONFIG_MAP, "a", "default", {"data": {"edited": "1"}})
    assert await apply(client, "{k: '1'}") == {"k": "1", "edited": "1"}
    assert await apply(client, "{k: '1', n: '1'}") == {"k": "1", "n": "1", "edited": "1"}
    # kubectl applies in between what it changes, and owns that.
    await kubectl.patch(CONFIG_MAP, "a", "default", {"data": {"n": "2"}})
    assert await apply(client, "{k: '1'}") == {"k": "1", "edited": "1"}


async def test_kubectl_can_see_what_was_applied_before(kaos_in_process: InProcess) -> None:
    client = Client(kaos_in_process, field_manager="kaos-cli")
    await apply(client, "{k: '1'}")
    found = await client.get(CONFIG_MAP, "a", "default")
    last = json.loads(found.metadata.annotations[LAST_APPLIED])
    assert (last["metadata"]["name"], last["data"]) == ("a", {"k": "1"})


def test_the_annotation_is_not_in_itself_and_not_too_large() -> None:
    metadata = {"name": "a", "annotations": {"mine": "1", LAST_APPLIED: "old"}}
    made = remembered({"kind": "ConfigMap", "metadata": metadata})["metadata"]["annotations"]
    assert made["mine"] == "1"
    assert LAST_APPLIED not in made[LAST_APPLIED]
    large = {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "x" * 300_000}}
    assert remembered(large) == large


def test_entries_of_others_stay_theirs() -> None:
    def entry(manager: str, operation: str, **more: Any) -> dict[str, Any]:
        return {"apiVersion": "v1", **more, "manager": manager, "operation": operation}

    name = "kubectl-client-side-apply"
    others = [
        entry(name, "Update", subresource="status"),
        entry(name, "Apply"),
        entry("x", "Update"),
    ]
    assert taken_over(others, "m") is None
    theirs = entry(name, "Update", fieldsV1={"f:data": {"f:a": {}}})
    assert taken_over([*others, theirs, entry("m", "Apply", apiVersion="v2")], "m") is None
    ours = entry("m", "Apply", fieldsV1={"f:data": {"f:b": {}}, "f:x": {}})
    fields: dict[str, Any] = {"f:data": {"f:a": {}, "f:b": {}}, "f:x": {}}
    assert taken_over([ours, *others, theirs], "m") == [
        *others,
        entry("m", "Apply", fieldsV1=fields),
    ]


def test_what_a_secret_holds_is_not_put_among_its_metadata() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"key": "hush"}}
    assert remembered(secret) == secret
