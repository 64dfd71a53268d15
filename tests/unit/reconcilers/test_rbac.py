"""manifests/rbac.yaml allows what the controllers do, and nothing of Secrets but to watch them."""

from collections import defaultdict
from pathlib import Path

import yaml

from kaos.api import MODELS
from kaos.reconcilers.grants import REFERENCE_GRANT
from kaos.reconcilers.pod_metrics import API_SERVICE
from kaos.reconcilers.workload import CHILD_KINDS
from kaos.runtime import POD, SECRET, ResourceType

MANIFEST = Path(__file__).parents[3] / "manifests" / "rbac.yaml"
WATCHED = {"list", "watch"}


def allowed() -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for body in yaml.safe_load_all(MANIFEST.read_text()):
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
