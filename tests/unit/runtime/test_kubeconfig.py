"""Kubeconfigs that kubectl takes, and what it makes of them."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kaos.runtime.kubeconfig import files, read

CLUSTER = {"server": "http://one"}


def written(path: Path, **fields: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(fields))
    return path


def context(name: str, **fields: str) -> dict[str, Any]:
    return {"name": name, "context": fields}


def whole(path: Path, cluster: dict[str, Any], user: dict[str, Any] | None) -> Path:
    return written(
        path,
        contexts=[context("x", cluster="c", user="u")],
        clusters=[{"name": "c", "cluster": cluster}],
        users=[{"name": "u", "user": user}],
        **{"current-context": "x"},
    )


def chosen(*paths: Path, named: str | None = None) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The cluster, the user and the namespace."""
    found = read(paths, named)
    assert found is not None
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
    return cluster, user, found["contexts"][0]["context"]["namespace"]


def test_a_context_that_is_asked_for_has_its_own_namespace(tmp_path: Path) -> None:
    path = written(
        tmp_path / "k",
        contexts=[
            context("dev", cluster="c", namespace="of-dev"),
            context("prod", cluster="c", namespace="of-prod"),
        ],
        clusters=[{"name": "c", "cluster": CLUSTER}],
        **{"current-context": "dev"},
    )
    assert chosen(path)[2] == "of-dev"
    assert chosen(path, named="prod")[2] == "of-prod"


def test_without_a_current_context_there_must_be_a_given_one(tmp_path: Path) -> None:
    path = written(
        tmp_path / "k",
        contexts=[context("only", cluster="c")],
        clusters=[{"name": "c", "cluster": CLUSTER}],
    )
    assert chosen(path, named="only")[0] == CLUSTER
    with pytest.raises(ValueError, match="no current context"):
        read([path])


@pytest.mark.parametrize("user", ["", None, "u"], ids=["empty", "none", "without fields"])
def test_a_user_may_have_nothing_to_show(tmp_path: Path, user: str | None) -> None:
    """As kubeconfigs for `kubectl proxy` have none."""
    path = written(
        tmp_path / "k",
        contexts=[{"name": "x", "context": {"cluster": "c", "user": user}}],
        clusters=[{"name": "c", "cluster": {**CLUSTER, "certificate-authority-data": ""}}],
        users=[{"name": "u", "user": None}],
        **{"current-context": "x"},
    )
    assert chosen(path)[:2] == (CLUSTER, {})


def test_of_several_files_the_first_to_name_a_thing_counts(tmp_path: Path) -> None:
    """Clusters of kubeadm all have the same names: another one was spoken to than by kubectl."""
    (tmp_path / "empty").write_text("")
    first = whole(tmp_path / "first", CLUSTER, {"token": "first"})
    second = whole(tmp_path / "second", {"server": "http://two"}, {"token": "second"})
    assert chosen(tmp_path / "empty", first, second)[:2] == (CLUSTER, {"token": "first"})


def test_a_path_is_relative_to_the_file_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of that name in the working directory was taken for it."""
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    told: dict[str, Any] = {"client-certificate": "crt", "client-key": "key", "tokenFile": "token"}
    path = whole(there / "k", {**CLUSTER, "certificate-authority": "ca"}, told)
    names = written(
        elsewhere / "k",
        contexts=[context("x", cluster="c", user="u")],
        **{"current-context": "x"},
    )
    for name in ("ca", "crt", "key", "token"):
        (there / name).touch()
        (elsewhere / name).touch()
    monkeypatch.chdir(elsewhere)
    cluster, user, _ = chosen(names, path)
    assert cluster["certificate-authority"] == str(there / "ca")
    assert user == {field: str(there / name) for field, name in told.items()}
    (there / "key").unlink()
    with pytest.raises(ValueError, match=r"client-key of user 'u' is missing: .*there/key"):
        read([names, path])


def test_what_is_given_as_data_needs_no_file(tmp_path: Path) -> None:
    told = {"client-key": "gone", "client-key-data": "S0VZ"}
    assert chosen(whole(tmp_path / "k", CLUSTER, told))[1] == {"client-key-data": "S0VZ"}


def test_a_plugin_is_told_what_kubectl_tells_it(tmp_path: Path) -> None:
    version = "client.authentication.k8s.io/v1"
    (tmp_path / "ca").write_text("CA")
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    cluster = {**CLUSTER, "certificate-authority": "ca", "extensions": [extension]}
    plugin = {
        "apiVersion": version,
        "command": "./plugin",
        "env": [{"name": "A", "value": "b"}],
        "provideClusterInfo": True,
    }
    given = chosen(whole(tmp_path / "k", cluster, {"exec": plugin}))[1]["exec"]
    assert given["command"] == str(tmp_path / "plugin")
    own, info = given["env"]
    assert own == {"name": "A", "value": "b"}
    assert info["name"] == "KUBERNETES_EXEC_INFO"
    told = {
        "server": "http://one",
        "certificate-authority-data": base64.b64encode(b"CA").decode(),
        "config": {"audience": "a"},
    }
    spec = {"interactive": False, "cluster": told}
    expected = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    assert json.loads(info["value"]) == expected


def test_who_impersonates_is_not_taken_for_oneself(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="impersonates"):
        read([whole(tmp_path / "k", CLUSTER, {"token": "t", "as": "viewer"})])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("users: [token: s3cret", "is no YAML: .* in line 1"),
        ("- a", "is no kubeconfig: Expected `object`"),
        ("contexts: [{name: 1}]", "is no kubeconfig: Expected `str`, got `int`"),
        ("\0", "is no kubeconfig"),
        ("current-context: x", "there is no context 'x'"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: c}}]}", "no cluster 'c'"),
    ],
)
def test_what_is_no_kubeconfig_is_told_and_not_repeated(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    named = None if "contexts" in text else "x"
    with pytest.raises(ValueError, match=told) as raised:
        read([path], named)
    assert "s3cret" not in str(raised.value)


def test_no_context_at_all_is_no_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("{contexts: null, clusters: null, users: null}")
    assert read([tmp_path / "k"]) is None
    with pytest.raises(ValueError, match="it cannot be read"):
        read([tmp_path])


def test_an_empty_variable_is_as_good_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    own = written(tmp_path / ".kube" / "config")
    monkeypatch.setenv("KUBECONFIG", "")
    assert files(None) == [own]
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'absent'}::{own}")
    assert files(None) == [own]
    assert files(tmp_path / "asked for") == [tmp_path / "asked for"]
