"""Volumes as folders."""

import stat
from pathlib import Path
from typing import Any

import pytest

from kaos.local.node.paths import UnsafePath, folder_name, inside
from kaos.local.node.sources import LoadedSources, references
from kaos.local.node.volumes import VolumeError, Volumes, mounts
from kaos.runtime import CONFIG_MAP, SECRET

SOURCES = LoadedSources({"c": {"a": "1", "b.txt": "2"}}, {"s": {"key": b"\x00hush"}})


def pod(*volumes: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"app": "p"}}
    return {"metadata": metadata, "spec": {"volumes": list(volumes)}}


def set_up(tmp_path: Path, *volumes: dict[str, Any]) -> dict[str, Path]:
    return Volumes(tmp_path).set_up(pod(*volumes), SOURCES, {"claim"}.__contains__)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_kind_of_volume(tmp_path: Path) -> None:
    folders = set_up(
        tmp_path,
        {"name": "scratch", "emptyDir": {}},
        {"name": "conf", "configMap": {"name": "c"}},
        {"name": "some", "configMap": {"name": "c", "items": [{"key": "a", "path": "x/y"}]}},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
        {
            "name": "all",
            "projected": {
                "sources": [
                    {"configMap": {"name": "c"}},
                    {"secret": {"name": "s"}},
                    {"serviceAccountToken": {"path": "token"}},
                    {
                        "downwardAPI": {
                            "items": [
                                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
                            ]
                        }
                    },
                ]
            },
        },
    )
    assert list(folders["scratch"].iterdir()) == []
    assert (folders["conf"] / "b.txt").read_text() == "2"
    assert [p.name for p in folders["some"].rglob("*")] == ["x", "y"]
    assert (folders["secret"] / "key").read_bytes() == b"\x00hush"
    assert folders["claim"] == tmp_path / "volumes" / "ns" / "claim"
    assert {p.name for p in folders["all"].iterdir()} == {"a", "b.txt", "key", "labels"}
    assert mode(folders["secret"] / "key") == mode(folders["all"] / "key") == 0o600
    assert mode(folders["secret"]) == 0o700


def test_a_pods_folders_go_with_it_and_a_claim_stays(tmp_path: Path) -> None:
    folders = set_up(
        tmp_path,
        {"name": "scratch", "emptyDir": {}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}},
    )
    volumes = Volumes(tmp_path)
    assert volumes.known_pods() == ["u1"]
    volumes.remove_pod("u1")
    assert [path.exists() for path in folders.values()] == [False, True]
    volumes.remove_claim("ns", "claim")
    assert not folders["claim"].exists()


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        ({"configMap": {"name": "x"}}, 'configmap "x" not found'),
        ({"secret": {"secretName": "x"}}, 'secret "x" not found'),
        ({"persistentVolumeClaim": {"claimName": "x"}}, 'persistentvolumeclaim "x" not found'),
        ({"configMap": {"name": "c", "items": [{"key": "x", "path": "x"}]}}, "has no key x"),
        ({"hostPath": {"path": "/"}}, "volumes of type hostPath are not supported"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../x"}]}}, "stay inside"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "/etc/x"}]}}, "stay inside"),
    ],
)
def test_what_cannot_be_set_up_names_the_volume(
    volume: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(VolumeError, match=f'SetUp failed for volume "v" : .*{says}'):
        set_up(tmp_path, {"name": "v", **volume})


def test_optional_sources_may_be_missing(tmp_path: Path) -> None:
    folders = set_up(tmp_path, {"name": "v", "configMap": {"name": "x", "optional": True}})
    assert list(folders["v"].iterdir()) == []


def test_mounts_and_sub_paths(tmp_path: Path) -> None:
    container = {
        "volumeMounts": [
            {"name": "v", "mountPath": "/data/"},
            {"name": "v", "mountPath": "/other", "subPath": "a/b"},
        ]
    }
    assert mounts(container, {"v": tmp_path}) == {"/data": tmp_path, "/other": tmp_path / "a/b"}
    assert (tmp_path / "a/b").is_dir()
    with pytest.raises(VolumeError, match="no such volume"):
        mounts(container, {})
    outside = {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../x"}]}
    with pytest.raises(VolumeError, match="stay inside"):
        mounts(outside, {"v": tmp_path})


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "../../etc", "a\0b", ".hidden"])
def test_a_name_never_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    assert (tmp_path / folder_name(name)).resolve().parent == tmp_path.resolve()
    assert folder_name(name) != name


@pytest.mark.parametrize("path", ["", "/", "/etc", "..", "a/../../b"])
def test_a_relative_path_never_leads_out_of_its_folder(path: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafePath):
        inside(tmp_path, path)


def test_all_references_of_a_pod_are_found() -> None:
    spec = {
        "initContainers": [{"envFrom": [{"configMapRef": {"name": "c1"}}]}],
        "containers": [
            {
                "envFrom": [{"secretRef": {"name": "s1"}}],
                "env": [
                    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}},
                    {"name": "C", "value": "x"},
                ],
            }
        ],
        "volumes": [
            {"name": "a", "secret": {"secretName": "s3"}},
            {"name": "b", "configMap": {"name": "c3"}},
            {"name": "c", "projected": {"sources": [{"secret": {"name": "s4"}}]}},
        ],
    }
    found = set(references({"spec": spec}))
    secrets = {(SECRET, f"s{i}") for i in (1, 2, 3, 4)}
    assert found == secrets | {(CONFIG_MAP, f"c{i}") for i in (1, 2, 3)}


def test_what_has_not_changed_is_not_written_again(tmp_path: Path) -> None:
    volume = {"name": "conf", "configMap": {"name": "c"}}
    folder = set_up(tmp_path, volume)["conf"]
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    news = LoadedSources({"c": {"a": "1", "b.txt": "new"}}, {})
    Volumes(tmp_path).set_up(pod(volume), news, {"claim"}.__contains__)
    after = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert before["a"] == after["a"]
    assert before["b.txt"] != after["b.txt"]
    assert (folder / "b.txt").read_text() == "new"


def test_a_key_that_leaves_its_config_map_leaves_the_folder(tmp_path: Path) -> None:
    volume = {"name": "conf", "configMap": {"name": "c"}}
    volumes = Volumes(tmp_path)

    def follow(texts: dict[str, str]) -> list[str]:
        found = volumes.set_up(pod(volume), LoadedSources({"c": texts}, {}), {""}.__contains__)
        return sorted(path.name for path in found["conf"].iterdir())

    assert follow({"a": "1", "b": "2"}) == ["a", "b"]
    (volumes.pod_folder("u1") / "volumes" / "conf" / "own").touch()
    assert follow({"b": "2", "c": "3"}) == ["b", "c", "own"]
    volumes = Volumes(tmp_path)  # the next cluster process
    assert follow({"c": "3"}) == ["c"]


def test_what_a_pod_has_written_into_its_scratch_folder_stays(tmp_path: Path) -> None:
    volume = {"name": "scratch", "emptyDir": {}}
    (set_up(tmp_path, volume)["scratch"] / "own").touch()
    assert (set_up(tmp_path, volume)["scratch"] / "own").exists()
