"""What a user says about the pod wins, and what does not fit is told, never swallowed."""

import copy
from typing import Any

import pytest

from kaos.reconcilers.children.agent import agent_children
from kaos.reconcilers.children.mcpserver import mcpserver_children
from kaos.reconcilers.children.modelapi import modelapi_children
from kaos.reconcilers.children.patch import PatchError, merged
from kaos.reconcilers.settings import Settings
from tests.unit.reconcilers.resources import agent, by_kind, env_of, hosted, proxy, server

SETTINGS = Settings(image="kaos/kaos:test")
WISH = {
    "image": "corp/mine:1",
    "command": ["serve"],
    "args": ["$(X); rm -rf /"],
    "env": [{"name": "LOG_LEVEL", "value": "DEBUG"}],
    "resources": {"limits": {"memory": "1Gi"}},
}


def deployment(kind: str, **spec: Any) -> dict[str, Any]:
    match kind:
        case "Agent":
            children = agent_children(agent(**spec), "m", SETTINGS, routes=False)
        case "MCPServer":
            one = server(mcp="test-mcp-echo-server").model_dump(by_alias=True, exclude_unset=True)
            one["spec"] |= spec
            made = server(mcp="test-mcp-echo-server").parse(one)
            children = mcpserver_children(made, SETTINGS, routes=False)
        case _:
            api = hosted() if kind == "Hosted" else proxy("m", apiBase="http://up/v1")
            one = api.model_dump(by_alias=True, exclude_unset=True)
            one["spec"] |= spec
            children = modelapi_children(api.parse(one), SETTINGS, routes=False)
    found: dict[str, Any] = by_kind(children)["Deployment"]
    return found


def pod(kind: str, **spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = deployment(kind, **spec)["spec"]["template"]["spec"]
    return found


every_kind = pytest.mark.parametrize("kind", ["Agent", "MCPServer", "Hosted", "Proxy"])


@every_kind
def test_w1_all_of_container_is_applied_to_the_main_container(kind: str) -> None:
    main = pod(kind, container=WISH)["containers"][0]

    assert (main["image"], main["command"], main["args"]) == (
        WISH["image"],
        WISH["command"],
        WISH["args"],  # one argument of a process: no shell ever reads it
    )
    assert main["resources"] == WISH["resources"]
    assert env_of(deployment(kind, container=WISH))["LOG_LEVEL"] == "DEBUG"


def test_a_command_alone_drops_the_arguments_that_were_another_programs() -> None:
    assert pod("Hosted", container={"command": ["x"]})["containers"][0]["args"] == []


@every_kind
def test_w10_a_patch_needs_no_containers(kind: str) -> None:
    patched = pod(kind, podSpec={"nodeSelector": {"gpu": "yes"}})
    assert patched.pop("nodeSelector") == {"gpu": "yes"}
    assert patched == pod(kind)


def test_a_patch_is_merged_by_name() -> None:
    patch = {
        "containers": [
            {"name": "agent", "env": [{"name": "AGENT_NAME", "value": "x"}]},
            {"name": "sidecar", "image": "s"},
        ],
        "securityContext": {"fsGroup": None},
    }
    patched = pod("Agent", podSpec=patch)

    main, sidecar = patched["containers"]
    assert main["image"] == "kaos/kaos:test"
    assert {"name": "AGENT_NAME", "value": "x"} in main["env"]
    assert sidecar == {"name": "sidecar", "image": "s"}
    assert "fsGroup" not in patched["securityContext"]
    assert patched["securityContext"]["runAsNonRoot"] is True


def test_a_variable_from_a_source_replaces_one_with_a_value() -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    patch = {"env": [{"name": "A", "valueFrom": source}, {"name": "B", "$patch": "delete"}]}
    assert merged({"env": env}, patch)["env"] == [{"name": "A", "valueFrom": source}]


def test_a_volume_of_another_sort_replaces_the_one_of_its_name() -> None:
    base = {"volumes": [{"name": "models", "emptyDir": {}}]}
    claim = {"name": "models", "persistentVolumeClaim": {"claimName": "c"}}
    assert merged(base, {"volumes": [claim]})["volumes"] == [claim]


def test_the_base_is_not_changed() -> None:
    base = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}
    before = copy.deepcopy(base)
    merged(base, {"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}]}]})
    assert base == before


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ({"containers": [{"image": "x"}]}, r"podSpec.containers\[0\]: needs name"),
        ({"containers": {"a": 1}}, "podSpec.containers: must be a list, not an object"),
        ({"containers": "x"}, "podSpec.containers: must be a list, not a plain value"),
        ({"securityContext": [1]}, "podSpec.securityContext: must be an object, not a list"),
        (
            {"containers": [{"name": "agent", "$patch": "replace"}]},
            r"containers\[0\]: \$patch can only be delete",
        ),
    ],
)
def test_w10_a_patch_that_does_not_fit_is_told_with_its_place(
    patch: dict[str, Any], says: str
) -> None:
    with pytest.raises(PatchError, match=says):
        pod("Agent", podSpec=patch)


def test_a_token_is_mounted_only_for_a_service_account_that_is_named() -> None:
    assert pod("Agent")["automountServiceAccountToken"] is False
    named = pod("Agent", serviceAccountName="reader")
    assert (named["serviceAccountName"], named["automountServiceAccountToken"]) == ("reader", True)


@pytest.mark.parametrize("kind", ["Agent", "MCPServer", "ModelAPI"])
def test_r13_code_of_users_runs_without_root_and_without_a_token(kind: str) -> None:
    made = pod(kind)
    assert made["automountServiceAccountToken"] is False
    assert made["securityContext"]["runAsNonRoot"] is True
    for container in made["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
