"""Service DNS on a cluster (left alone) and on the embedded cluster (mapped)."""

import json
from pathlib import Path

import pytest

from kaos import discovery


@pytest.fixture
def service_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "services.json"
    path.write_text(json.dumps({"assistant.default.svc.cluster.local:80": "127.0.0.1:4001"}))
    monkeypatch.setenv("KAOS_SERVICE_MAP", str(path))
    monkeypatch.setenv("KAOS_CLUSTER_DOMAIN", "cluster.local")
    monkeypatch.delenv("KAOS_POD_NAMESPACE", raising=False)
    return path


def test_on_a_cluster_a_url_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAOS_SERVICE_MAP", raising=False)
    url = "http://assistant.default.svc.cluster.local:8000/v1?x=1"
    assert discovery.locate(url) == url


@pytest.mark.parametrize(
    "host",
    [
        "assistant.default.svc.cluster.local",
        "assistant.default.svc.cluster.local.",
        "Assistant.Default.svc.cluster.local",
        "assistant.default.svc",
        "assistant.default",
        "assistant",
    ],
)
def test_every_form_of_a_service_name_is_found(service_map: Path, host: str) -> None:
    assert discovery.locate(f"http://{host}/v1/models?a=b") == (
        "http://127.0.0.1:4001/v1/models?a=b"
    )


def test_a_short_name_means_the_pods_own_namespace(
    service_map: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAOS_POD_NAMESPACE", "other")
    assert discovery.locate("http://assistant") == "http://assistant"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9999/v1", "https://api.example.com/v1", "http://[::1]:80/x"]
)
def test_what_is_no_service_is_left_alone(service_map: Path, url: str) -> None:
    assert discovery.locate(url) == url


def test_a_missing_service_fails_at_once_and_names_the_known_ones(service_map: Path) -> None:
    with pytest.raises(discovery.ServiceNotFound, match=r"analyst.*known: assistant\.default"):
        discovery.locate("http://analyst.default.svc.cluster.local")


def test_a_missing_port_is_a_missing_service(service_map: Path) -> None:
    with pytest.raises(discovery.ServiceNotFound, match=":8000"):
        discovery.locate("http://assistant.default.svc.cluster.local:8000")


def test_a_changed_file_is_read_again(service_map: Path) -> None:
    url = "http://assistant.default.svc.cluster.local"
    assert discovery.locate(url) == "http://127.0.0.1:4001"
    changed = service_map.with_suffix(".new")
    changed.write_text(json.dumps({"assistant.default.svc.cluster.local:80": "127.0.0.1:4002"}))
    changed.replace(service_map)
    assert discovery.locate(url) == "http://127.0.0.1:4002"


def test_a_file_not_written_yet_knows_no_service(service_map: Path) -> None:
    service_map.unlink()
    with pytest.raises(discovery.ServiceNotFound, match="known: none"):
        discovery.locate("http://assistant.default.svc.cluster.local")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("search default.svc.cluster.local svc.cluster.local cluster.local\n", "cluster.local"),
        ("nameserver 10.0.0.1\nsearch ns.svc.k8s.corp svc.k8s.corp k8s.corp\n", "k8s.corp"),
        ("search svc.old.one\nsearch a.svc.new.one svc.new.one\n", "new.one"),
        ("search example.com\n", "cluster.local"),
        ("", "cluster.local"),
    ],
)
def test_the_domain_comes_from_resolv_conf(tmp_path: Path, text: str, domain: str) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    assert discovery._domain_of(path) == domain


def test_without_resolv_conf_the_domain_is_the_usual_one(tmp_path: Path) -> None:
    assert discovery._domain_of(tmp_path / "none") == "cluster.local"


def test_service_url_leaves_out_port_80(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAOS_CLUSTER_DOMAIN", "c.test")
    assert discovery.service_url("a", "n") == "http://a.n.svc.c.test"
    assert discovery.service_url("a", "n", 8000) == "http://a.n.svc.c.test:8000"
