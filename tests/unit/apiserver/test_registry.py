"""The table of kinds, and discovery, which shows it."""

import msgspec
import pytest

from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.definitions import kinds_of
from kaos.local.apiserver.discovery import Discovery
from kaos.local.apiserver.registry import Kind, Registry, version_priority
from tests.unit.apiserver.support import definition


def test_versions_in_the_order_of_kubernetes() -> None:
    ordered = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v1beta1", "v12alpha1", "foo1", "foo10"]
    shuffled = [*ordered[1::2], *ordered[::2]]
    assert sorted(shuffled, key=version_priority) == ordered


def widgets() -> list[Kind]:
    crd = definition()
    crd["spec"]["names"] |= {"listKind": "WidgetList", "singular": "widget"}
    return kinds_of(crd)


def test_a_definition_shadows_a_built_in_kind_and_gives_it_back() -> None:
    registry = Registry(builtin_kinds())
    builtin = registry.find("gateway.networking.k8s.io", "v1", "httproutes")
    crd = definition()
    crd["metadata"]["name"] = "httproutes.gateway.networking.k8s.io"
    crd["spec"]["group"] = "gateway.networking.k8s.io"
    crd["spec"]["names"] = {
        "plural": "httproutes",
        "kind": "HTTPRoute",
        "singular": "httproute",
        "listKind": "HTTPRouteList",
    }
    kinds = kinds_of(crd)
    generation = registry.generation
    registry.set_custom(kinds[0].crd, kinds)
    found = registry.find("gateway.networking.k8s.io", "v1", "httproutes")
    assert found == kinds[0]
    assert builtin is not None
    assert found is not None
    assert found.bucket == builtin.bucket, "the objects stay"
    assert registry.generation == generation + 1
    registry.set_custom(kinds[0].crd, [])
    assert registry.find("gateway.networking.k8s.io", "v1", "httproutes") is builtin


def test_the_same_again_changes_no_generation() -> None:
    registry = Registry(builtin_kinds())
    registry.set_custom("widgets.test.io", widgets())
    generation = registry.generation
    registry.set_custom("widgets.test.io", widgets())
    assert registry.generation == generation


@pytest.mark.parametrize("core", [True, False])
def test_both_forms_of_discovery_tell_the_same(core: bool) -> None:
    registry = Registry(builtin_kinds())
    discovery = Discovery(registry, version="1.34.0")
    whole = msgspec.json.decode(discovery.aggregated(core=core, version="v2"))
    for group in whole["items"]:
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            told = {entry["resource"]: entry for entry in version["resources"]}
            raw = discovery.resources(name, version["version"])
            assert raw is not None
            plain = msgspec.json.decode(raw)["resources"]
            assert [entry["name"] for entry in plain if "/" not in entry["name"]] == list(told)
            views = {
                f"{entry['resource']}/{view['subresource']}"
                for entry in told.values()
                for view in entry.get("subresources", ())
            }
            assert {entry["name"] for entry in plain if "/" in entry["name"]} == views


def test_a_new_kind_appears_at_once() -> None:
    registry = Registry(builtin_kinds())
    discovery = Discovery(registry, version="1.34.0")
    assert discovery.group("test.io") is None
    registry.set_custom("widgets.test.io", widgets())
    assert discovery.group("test.io") is not None
    assert b'"widgets"' in (discovery.resources("test.io", "v1") or b"")
    assert b'"test.io"' in discovery.groups()
