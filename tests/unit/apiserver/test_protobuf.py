"""Protobuf bodies: what kubectl sends for its create commands, and every broken body."""

import contextlib
from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.local.apiserver import protobuf
from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.protobuf import ProtobufError, decode_protobuf

# Bodies that kubectl 1.37 sent for: create configmap (one text, one binary), create secret
# generic, create deployment --replicas=0 --port=80, create service clusterip with a named
# and a numbered target, create pdb --min-available=50%, create priorityclass --value=0.
RECORDED = {
    "configmaps": b64decode(
        "azhzAAoPCgJ2MRIJQ29uZmlnTWFwEiYKEQoBYxIAGgAiACoAMgA4AEIAEgYKAWESAWIaCQoDYmluEgIA/xoAIgA="
    ),
    "secrets": b64decode(
        "azhzAAoMCgJ2MRIGU2VjcmV0EiIKEQoBcxIAGgAiACoAMgA4AEIAEgsKA2tleRIEdsOkbBoAGgAiAA=="
    ),
    "deployments": b64decode(
        "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EqkBChsKAWQSABoAIgAqADIAOABCAFoICgNhcHASAWQS"
        "fAgAEgoKCAoDYXBwEgFkGmQKGgoAEgAaACIAKgAyADgAQgBaCAoDYXBwEgFkEkYSKAoBeBIDeDoxKgAy"
        "CgoAEAAYUCIAKgBCAGoAcgCAAQCIAQCQAQCiAQAaADIAQgBKAFIAWABgAGgAggEAigEAmgEAwgEAIgIK"
        "ACgAOAAaDAgAEAAYACAAKAA4ABoAIgA="
    ),
    "services": b64decode(
        "azhzAAoNCgJ2MRIHU2VydmljZRKFAQobCgFzEgAaACIAKgAyADgAQgBaCAoDYXBwEgFzEmIKHgoHODAt"
        "aHR0cBIDVENQGFAiCggBEAAaBGh0dHAoAAodCgg0NDMtODQ0MxIDVENQGLsDIgcIABD7QRoAKAASCAoD"
        "YXBwEgFzGgAiCUNsdXN0ZXJJUDoAQgBSAFoAYABoABoCCgAaACIA"
    ),
    "poddisruptionbudgets": b64decode(
        "azhzAAogCglwb2xpY3kvdjESE1BvZERpc3J1cHRpb25CdWRnZXQSNgoRCgFwEgAaACIAKgAyADgAQgAS"
        "FQoJCAEQABoDNTAlEggKBgoBYRIBYhoKCAAYACAAKAAwABoAIgA="
    ),
    "priorityclasses": b64decode(
        "azhzAAolChRzY2hlZHVsaW5nLms4cy5pby92MRINUHJpb3JpdHlDbGFzcxIwChIKAnBjEgAaACIAKgAy"
        "ADgAQgAQABgAIgAqFFByZWVtcHRMb3dlclByaW9yaXR5GgAiAA=="
    ),
}

EXPECTED: dict[str, dict[str, Any]] = {
    "configmaps": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c"},
        "data": {"a": "b"},
        "binaryData": {"bin": "AP8="},
    },
    "secrets": {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"key": "dsOkbA=="},
    },
    "deployments": {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {
                    "containers": [
                        {
                            "name": "x",
                            "image": "x:1",
                            "ports": [{"containerPort": 80}],
                            "resources": {},
                        }
                    ]
                },
            },
            "strategy": {},
        },
        "status": {},
    },
    "services": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "labels": {"app": "s"}},
        "spec": {
            "ports": [
                {"name": "80-http", "protocol": "TCP", "port": 80, "targetPort": "http"},
                {"name": "443-8443", "protocol": "TCP", "port": 443, "targetPort": 8443},
            ],
            "selector": {"app": "s"},
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    },
    "poddisruptionbudgets": {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "p"},
        "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}},
        "status": {
            "disruptionsAllowed": 0,
            "currentHealthy": 0,
            "desiredHealthy": 0,
            "expectedPods": 0,
        },
    },
    "priorityclasses": {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "pc"},
        "value": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    },
}


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value % (1 << 64))
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    head = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return head + (varint(number >> 7) if number > 0x7F else b"")


def body(api_version: str, kind: str, message: bytes) -> bytes:
    head = field(1, api_version) + field(2, kind)
    return b"k8s\0" + field(1, head) + field(2, message) + field(3, "") + field(4, "")


@pytest.mark.parametrize("name", RECORDED)
def test_what_kubectl_sent_is_read(name: str) -> None:
    assert decode_protobuf(RECORDED[name]) == EXPECTED[name]


def test_times_are_read_and_empty_ones_left_out() -> None:
    meta = field(1, "l") + field(8, b"") + field(9, field(1, 1_700_000_000))
    spec = field(1, "me") + field(2, 15) + field(4, field(1, 1_700_000_000) + field(2, 5_000))
    message = field(1, meta) + field(2, spec)
    lease = decode_protobuf(body("coordination.k8s.io/v1", "Lease", message))
    assert lease["metadata"] == {"name": "l", "deletionTimestamp": "2023-11-14T22:13:20Z"}
    assert lease["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "renewTime": "2023-11-14T22:13:20.000005Z",
    }


def test_fields_of_an_inlined_message_belong_to_the_one_around_it() -> None:
    volume = field(1, "v") + field(2, field(2, b""))  # VolumeSource.emptyDir
    message = field(2, field(1, volume))
    pod = decode_protobuf(body("v1", "Pod", message))
    assert pod["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


def test_negative_numbers_raw_json_and_packed_lists() -> None:
    managed = field(1, "me") + field(7, field(1, '{"f:spec":{}}'))
    options = field(1, -1)
    pod = field(1, field(17, managed)) + field(2, field(4, -5))
    read = decode_protobuf(body("v1", "Pod", pod))
    assert read["metadata"]["managedFields"] == [{"manager": "me", "fieldsV1": {"f:spec": {}}}]
    assert read["spec"] == {"terminationGracePeriodSeconds": -5}
    context = field(14, field(4, varint(1) + varint(300)))  # supplementalGroups, packed
    read = decode_protobuf(body("v1", "Pod", field(2, context)))
    assert read["spec"]["securityContext"]["supplementalGroups"] == [1, 300]
    deletion = decode_protobuf(body("apps/v1", "DeleteOptions", options))
    assert deletion["gracePeriodSeconds"] == -1


def test_fields_of_a_newer_kubernetes_are_left_out() -> None:
    message = (
        field(1, field(1, "x")) + field(99, "new") + field(98, 1) + varint(97 << 3 | 5) + b"1234"
    )
    namespace = decode_protobuf(body("v1", "Namespace", message))
    assert namespace["metadata"] == {"name": "x"}


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{}", "does not begin"),
        (body("example.com/v1", "Foo", b""), "Foo of 'example.com/v1' is read as JSON only"),
        (b"k8s\0", "this kind"),
        (body("v1", "Namespace", b"\x0a\xff"), "within a number"),
        (body("v1", "Namespace", b"\x0a\x05ab"), "within a field"),
        (body("v1", "Namespace", b"\x0a" + b"\xff" * 11), "more than 64 bits"),
        (body("v1", "Namespace", b"\x0b"), "unknown sort 3"),
        (body("v1", "Namespace", field(1, 7)), "where an object belongs"),
        (body("v1", "Namespace", field(1, field(1, b"\xff"))), "not UTF-8"),
        (body("v1", "Pod", field(2, field(4, b"x"))), "where a number belongs"),
        (body("v1", "Pod", field(1, field(17, field(7, field(1, "{"))))), "JSON within"),
        (body("v1", "Pod", field(1, field(9, field(1, 1 << 62)))), "a time that is none"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(raw: bytes, words: str) -> None:
    with pytest.raises(ProtobufError, match=words):
        decode_protobuf(raw)


@given(st.sampled_from(sorted(RECORDED)), st.data())
def test_damaged_bodies_never_raise_anything_else(name: str, data: st.DataObject) -> None:
    raw = bytearray(RECORDED[name])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtobufError):
        decode_protobuf(bytes(raw))


def test_every_type_that_the_table_names_is_there() -> None:
    table = protobuf.field_table()
    for message in table.values():
        for entry in message.values():
            assert entry.type in table or entry.type in protobuf._READERS, entry


def test_every_built_in_kind_of_a_typed_go_client_is_in_the_table() -> None:
    own_clients = {"apiextensions.k8s.io", "gateway.networking.k8s.io"}  # these send JSON
    for kind in builtin_kinds():
        if kind.group not in own_clients:
            assert protobuf.message_name(kind.api_version, kind.kind) is not None
