"""Reading manifests: order, places, and errors that name them."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.cli.errors import UsageError
from kaos.cli.manifests import load, parse

TWO = """\
# a comment
apiVersion: v1
kind: ConfigMap
metadata:
  name: one
data:
  since: 2026-11-22
---
---
apiVersion: v1
kind: Secret
metadata: {name: two, namespace: other}
stringData:
  - a
  - b: {c: d}
"""


def test_documents_keep_their_order_and_their_places() -> None:
    one, two = parse("f.yaml", TWO)
    assert (one.kind, one.name, one.namespace) == ("ConfigMap", "one", "")
    assert (two.kind, two.name, two.namespace) == ("Secret", "two", "other")
    assert one.where() == "f.yaml:2:1"
    assert one.where(["metadata", "name"]) == "f.yaml:5:3"
    assert two.where(["stringData", 1, "b", "c"]) == "f.yaml:15:9"
    assert two.where(["stringData", 1, "x", "y"]) == "f.yaml:15:5"


def test_a_date_is_text_as_in_kubernetes() -> None:
    one, _ = parse("f.yaml", TWO)
    assert one.body["data"] == {"since": "2026-11-22"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:30", "10:30"),
        ("1:30.5", "1:30.5"),
        ("=", "="),
        ("0x", "0x"),
        ("0b_", "0b_"),
        ("1.2.3", "1.2.3"),
        ("1e3", 1000),
        ("1e-3", 0.001),
        ("08", 8),
        ("0o17", 15),
        ("017", 15),
        ("1_000", 1000),
        ("1.0", 1),
        ("-.5", -0.5),
    ],
)
def test_plain_values_mean_what_kubectl_takes_them_for(text: str, value: object) -> None:
    head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n"
    (found,) = parse("f.yaml", f"{head}value: {text}\n")
    assert (found.body["value"], type(found.body["value"])) == (value, type(value))


def test_a_list_counts_as_its_items() -> None:
    text = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata:
    name: inner
"""
    (inner,) = parse("f.yaml", text)
    assert inner.name == "inner"
    assert inner.where(["metadata", "name"]) == "f.yaml:7:5"


def test_json_is_yaml() -> None:
    (one,) = parse("f.json", '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}')
    assert one.name == "p"


def test_anchors_and_merges_are_resolved() -> None:
    text = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
base: &base {a: 1}
data: {<<: *base, b: 2}
"""
    (one,) = parse("f.yaml", text)
    assert one.body["data"] == {"a": 1, "b": 2}
    assert one.where(["data", "a"]) == "f.yaml:5:1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b\n c: d\n", "f.yaml:2:3: broken YAML: mapping values are not allowed"),
        ("a: [1, 2\n", "f.yaml:2:1: broken YAML"),
        ("a: !!python/object:os.system x\n", "broken YAML: could not determine a constructor"),
        ("a: \x00\n", "f.yaml: not YAML"),
        ("- 1\n", "f.yaml:1:1: expected a Kubernetes object, found a list"),
        ("hello\n", "f.yaml:1:1: expected a Kubernetes object, found text"),
        ("kind: Agent\n", "f.yaml:1:1: this object has no apiVersion"),
        ("apiVersion: v1\nkind: 3\n", "f.yaml:1:1: this object has no kind"),
        ("apiVersion: v1\nkind: Pod\n", "f.yaml:1:1: this Pod has no metadata.name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: [1]\n", "this Pod has no metadata.name"),
        ("apiVersion: v1\nkind: Pod\nkind: Pod\n", "f.yaml:3:1: kind is given twice"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\n", "metadata.name must be text: write"),
        ("? [a, b]\n: c\n", "f.yaml:1:3: a key must be text"),
        ("a: &a [*a]\n", "f.yaml: nested too deeply, or an alias within itself"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        list(parse("f.yaml", text))
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_small_file_that_unfolds_to_millions_of_values_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(UsageError, match="not a manifest"):
        list(parse("f.yaml", "\n".join(lines)))


def test_files_folders_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\n"
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b.yml").write_text(body.format("b"))
    (folder / "a.yaml").write_text(body.format("a"))
    (folder / "notes.txt").write_text("not read")
    file = tmp_path / "file.txt"
    file.write_bytes(b"\xef\xbb\xbf" + body.format("c").encode())
    monkeypatch.setattr("sys.stdin", io.StringIO(body.format("d")))
    names = [manifest.name for manifest in load([str(file), str(folder), "-"])]
    assert names == ["c", "a", "b", "d"]


@pytest.mark.parametrize(
    "text", ["", "# only words\n---\n", "kind: List\napiVersion: v1\nitems: []"]
)
def test_a_file_without_an_object_is_no_success(text: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(text)
    (tmp_path / "g.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n")
    with pytest.raises(UsageError) as caught:
        load([str(tmp_path / "g.yaml"), str(file)])
    assert str(caught.value) == f"{file}: there is no object in it"
    assert len(load([str(tmp_path)])) == 1  # one beside others in a folder may be empty


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    for name, message in {
        "missing.yaml": "No such file or directory",
        str(tmp_path / "empty"): "no .yaml, .yml, .json file in this folder",
        str(tmp_path / "latin.yaml"): "not text (UTF-8)",
        "https://example.org/x.yaml": "an address is not read",
    }.items():
        with pytest.raises(UsageError) as caught:
            load([name])
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_ends_in_anything_but_objects_or_a_usage_error(text: str) -> None:
    message = "f.yaml"
    try:
        list(parse("f.yaml", text))
    except UsageError as error:
        message = str(error)
    assert message.startswith("f.yaml")
