"""What is sent of a manifest."""

from kaos.cli.apply import placed
from kaos.cli.manifests import parse

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
