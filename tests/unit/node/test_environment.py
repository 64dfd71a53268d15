"""From a manifest to an environment and a command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.local.node.environment import (
    ConfigError,
    Translation,
    container_env,
    declared_ports,
    expand,
    field_value,
    inherited,
)
from kaos.local.node.sources import LoadedSources

NONE = LoadedSources({}, {})
SOURCES = LoadedSources({"c": {"a": "1", "b": "2"}}, {"s": {"key": b"hush"}})
POD: dict[str, Any] = {
    "metadata": {
        "name": "web",
        "namespace": "team",
        "uid": "u1",
        "labels": {"app": "web", "b": "2"},
    },
    "spec": {"nodeName": "local"},
}


def env_of(container: Mapping[str, Any], **options: Any) -> dict[str, str]:
    options.setdefault("translation", Translation())
    return container_env(container, POD, options.pop("sources", SOURCES), **options)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)-$(B)", "1-2"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$(A)$(A)", "11"),
    ],
)
def test_references_are_expanded_as_in_kubernetes(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text())
def test_escaping_dollars_makes_any_text_literal(text: str) -> None:
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


def test_a_later_variable_sees_an_earlier_one_and_wins_over_it() -> None:
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)2"},
        {"name": "C", "value": "$(LATER)"},
        {"name": "LATER", "value": "x"},
        {"name": "A", "value": "3"},
        {"name": "EMPTY"},
    ]
    assert env_of({"env": env}) == {
        "A": "3",
        "B": "12",
        "C": "$(LATER)",
        "LATER": "x",
        "EMPTY": "",
    }


def test_env_from_is_weaker_than_env_and_stronger_than_the_image() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "s"}, "prefix": "S_"}],
        "env": [{"name": "b", "value": "mine $(a)"}],
    }
    image_env = {"a": "image", "HOME": "/root"}
    assert env_of(container, image_env=image_env) == {
        "HOME": "/root",
        "a": "1",
        "b": "mine 1",
        "S_key": "hush",
    }


@pytest.mark.parametrize(
    ("container", "says"),
    [
        ({"envFrom": [{"configMapRef": {"name": "x"}}]}, 'configmap "x" not found'),
        ({"envFrom": [{"secretRef": {"name": "x"}}]}, 'secret "x" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x"}}}]},
            "couldn't find key x in Secret team/s",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "x", "key": "x"}}}]},
            "ConfigMap team/x not found",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "x"}}}]},
            "resourceFieldRef is not supported",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]},
            "unsupported fieldPath: spec.x",
        ),
    ],
)
def test_what_cannot_be_resolved_is_named(container: Mapping[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        env_of(container)


def test_optional_references_are_left_out() -> None:
    ref = {"name": "x", "key": "x", "optional": True}
    container = {
        "envFrom": [{"configMapRef": {"name": "x", "optional": True}}],
        "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": ref}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {**ref, "name": "c"}}},
        ],
    }
    assert env_of(container) == {}


def test_downward_api_fields() -> None:
    paths = {
        "metadata.name": "web",
        "metadata.namespace": "team",
        "metadata.uid": "u1",
        "metadata.labels['app']": "web",
        "metadata.annotations['none']": "",
        "metadata.labels": 'app="web"\nb="2"\n',
        "spec.nodeName": "local",
        "spec.serviceAccountName": "default",
        "status.podIP": "127.0.0.1",
    }
    assert {path: field_value(path, POD) for path in paths} == paths


PORTS = Translation(ports={8000: 41234, 11434: 20001})


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("0.0.0.0:8000", "127.0.0.1:41234"),
        ("http://localhost:8000/v1", "http://127.0.0.1:41234/v1"),
        ("127.0.0.1:11434,localhost:8000", "127.0.0.1:20001,127.0.0.1:41234"),
        ("[::]:8000", "127.0.0.1:41234"),
        ("http://my.localhost:8000", "http://my.localhost:8000"),
        ("10.127.0.0.1:8000", "10.127.0.0.1:8000"),
        ("localhost:80000", "localhost:80000"),
        ("localhost:9000", "localhost:9000"),
        ("http://peer.ns.svc:8000", "http://peer.ns.svc:8000"),
    ],
)
def test_addresses_of_declared_ports_become_host_ports(text: str, translated: str) -> None:
    assert PORTS.apply(text) == translated


MOUNTS = Translation(
    mounts={"/data": Path("/s/one"), "/data/deep": Path("/s/two"), "/": Path("/s/root")}
)


@pytest.mark.parametrize(
    ("text", "translated"),
    [
        ("/data", "/s/one"),
        ("/data/x.db", "/s/one/x.db"),
        ("/data/deep/x", "/s/two/x"),
        ("--store=/data/x", "--store=/s/one/x"),
        ("sqlite:////data/x.db", "sqlite:////s/one/x.db"),
        ("a:/data:/data/deep", "a:/s/one:/s/two"),
        ("/database", "/database"),
        ("/data-2", "/data-2"),
        ("/var/data", "/var/data"),
        ("http://host/data", "http://host/data"),
        ("/", "/"),
    ],
)
def test_mount_paths_become_folders(text: str, translated: str) -> None:
    assert MOUNTS.apply(text) == translated


def test_a_folder_that_looks_like_a_mount_path_is_not_translated_again() -> None:
    mounts = {"/data": Path("/tmp/data"), "/tmp": Path("/other")}
    assert Translation(mounts=mounts).apply("/data/x /tmp/y") == "/tmp/data/x /other/y"


def test_port_is_set_unless_the_manifest_sets_it() -> None:
    ports = [{"containerPort": 8000}, {"containerPort": 11434}]
    assert env_of({"ports": ports}, translation=PORTS) == {"PORT": "41234"}
    own = {"ports": ports, "env": [{"name": "PORT", "value": "11434"}]}
    assert env_of(own, translation=PORTS) == {"PORT": "20001"}
    foreign = {"ports": ports, "env": [{"name": "PORT", "value": "tcp://x"}]}
    assert env_of(foreign, translation=PORTS) == {"PORT": "tcp://x"}
    assert env_of({}, translation=PORTS) == {}


def test_only_a_short_list_is_inherited() -> None:
    machine = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PIP_INDEX_URL": "i",
        "KUBECONFIG": "k",
    }
    assert inherited(machine) == {"PATH": "/bin", "PIP_INDEX_URL": "i"}


def test_caches_stay_where_they_are_when_a_container_has_another_home() -> None:
    assert inherited({"HOME": "/home/me"})["XDG_CACHE_HOME"] == "/home/me/.cache"
    given = {"HOME": "/home/me", "XDG_CACHE_HOME": "/c"}
    assert inherited(given)["XDG_CACHE_HOME"] == "/c"


def test_a_proxy_is_never_asked_for_loopback() -> None:
    kept = inherited({"http_proxy": "http://p:3128", "no_proxy": "corp,localhost"})
    assert kept["no_proxy"] == "corp,localhost,127.0.0.1,::1"
    assert kept["NO_PROXY"] == "localhost,127.0.0.1,::1"


def test_declared_ports_are_the_tcp_ones_of_all_containers() -> None:
    containers = [
        {"ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]},
        {},
        {"ports": [{"containerPort": 81}, {"containerPort": 80, "protocol": "TCP"}]},
    ]
    assert declared_ports(containers) == [80, 81]
