"""manifests/rbac.yaml allows what the controllers do, and nothing of Secrets but to watch them."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

from kaos.api import MODELS, MCPServer
from kaos.reconcilers.grants import REFERENCE_GRANT
from kaos.reconcilers.pod_metrics import API_SERVICE
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.workload import CHILD_KINDS
from kaos.runtime import DEPLOYMENT, POD, SECRET, ResourceType
from kaos.testing.running import hosted
from tests.unit.reconcilers.conftest import running
from tests.unit.reconcilers.harness import ECHO

ROOT = Path(__file__).parents[3]
WATCHED = {"list", "watch"}


def bodies() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "manifests" / "rbac.yaml").read_text()))


def allowed() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for body in bodies():
        for rule in body.get("rules", ()) if body["kind"] == "ClusterRole" else ():
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    found[group, resource] |= set(rule["verbs"])
    return found


def verbs(resource: ResourceType, subresource: str = "") -> set[str]:
    return allowed()[resource.group, f"{resource.plural}{subresource}"]


def test_children_may_be_written_and_others_watched() -> None:
    for child in CHILD_KINDS:
        assert verbs(child) == {"get", "list", "watch", "create", "patch", "delete"}, child
    for kind in (*map(ResourceType.of, MODELS), POD, REFERENCE_GRANT, API_SERVICE):
        assert verbs(kind) >= WATCHED, kind
        assert not verbs(kind) & {"create", "update", "patch", "delete"}, kind
    for model in MODELS:
        assert verbs(ResourceType.of(model), "/status") == {"patch"}


def test_secrets_are_watched_and_never_got_or_written() -> None:
    assert verbs(SECRET) == WATCHED


def test_nothing_is_granted_that_nobody_uses() -> None:
    others = (POD, SECRET, REFERENCE_GRANT, API_SERVICE)
    used = {(kind.group, kind.plural) for kind in (*CHILD_KINDS, *others)}
    used |= {(model.GROUP, model.PLURAL) for model in MODELS}
    used |= {("events.k8s.io", "events")}
    assert {(group, name.partition("/")[0]) for group, name in allowed()} == used
    assert "*" not in {part for key in allowed() for part in key}


def test_w15_a_controller_for_some_namespaces_has_rights_in_no_other() -> None:
    folder = ROOT / "deploy" / "namespaced"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    deleted, deployment = (yaml.safe_load(each["patch"]) for each in kustomization["patches"])
    assert kustomization["patches"][0]["target"] == {"kind": "ClusterRoleBinding"}
    assert deleted["$patch"] == "delete"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = Settings.from_env({v["name"]: v["value"] for v in container["env"]})

    bound = defaultdict(set)
    for body in yaml.safe_load_all((folder / "bindings.yaml").read_text()):
        assert body["kind"] == "RoleBinding"
        (subject,) = body["subjects"]
        assert (subject["kind"], subject["name"]) == ("ServiceAccount", "kaos-controller")
        bound[body["metadata"]["namespace"]].add(body["roleRef"]["name"])
    roles = {b["metadata"]["name"] for b in bodies() if b["kind"] == "ClusterRole"}
    assert dict(bound) == dict.fromkeys(settings.namespaces, roles)


async def test_w15_what_is_in_other_namespaces_is_left_alone() -> None:
    async with hosted(running(Settings(namespaces=("default",)))) as cluster:
        await cluster.apply("MCPServer", "there", ECHO, cluster.elsewhere)
        await cluster.apply("MCPServer", "here", ECHO)
        await cluster.eventually(MCPServer, "here", lambda server: server.status)
        assert not (await cluster.client.get(MCPServer, "there", cluster.elsewhere)).status
        assert await cluster.client.list(DEPLOYMENT, cluster.elsewhere) == []
        watched = [informer.resource for informer in cluster.manager.cache.informers()]
        assert [kind for kind in watched if not kind.namespaced] == []
