"""What is sent of a manifest."""

import pytest

from kaos.cli.apply import apply_all, placed
from kaos.cli.errors import CliError
from kaos.cli.manifests import parse
from kaos.runtime import Client
from kaos.testing.inprocess import InProcess

FETCHED = """\
apiVersion: kaos.tools/v1alpha1
kind: Agent
metadata:
  name: a
  uid: x
  resourceVersion: "7"
  managedFields: []
  labels: {team: blue}
spec: {modelAPI: m}
status: {phase: Ready}
"""


def test_an_object_that_was_fetched_can_be_applied_again() -> None:
    (manifest,) = parse("f.yaml", FETCHED)
    assert placed(manifest) == {
        "apiVersion": "kaos.tools/v1alpha1",
        "kind": "Agent",
        "metadata": {"name": "a", "namespace": "default", "labels": {"team": "blue"}},
        "spec": {"modelAPI": "m"},
    }
    assert manifest.body["status"] == {"phase": "Ready"}


def test_a_namespace_has_none_and_one_that_is_given_is_kept() -> None:
    text = "apiVersion: v1\nkind: {}\nmetadata: {}\n"
    (cluster,) = parse("f", text.format("Namespace", "{name: n}"))
    (given,) = parse("f", text.format("ConfigMap", "{name: n, namespace: team}"))
    assert placed(cluster)["metadata"] == {"name": "n"}
    assert placed(given)["metadata"] == {"name": "n", "namespace": "team"}


async def test_a_namespace_that_is_not_there_is_told_with_the_ways_out(
    kaos_in_process: InProcess,
) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: nosuch}\n"
    with pytest.raises(CliError, match="f:1:1: ConfigMap/a: there is no namespace nosuch: put a"):
        await apply_all(Client(kaos_in_process), list(parse("f", text)))


async def test_a_misspelled_field_of_a_built_in_kind_is_refused(
    kaos_in_process: InProcess,
) -> None:
    """It was dropped in silence: a Secret's `stringdata` left an empty Secret behind."""
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
    (wrong,) = parse("f", text + "stringdata: {a: b}\n")
    (right,) = parse("f", text + "stringData: {a: b}\n")
    client = Client(kaos_in_process)
    with pytest.raises(CliError, match='unknown field "stringdata"'):
        await apply_all(client, [wrong])
    (made,) = await apply_all(client, [right])
    assert made.name == "s"
