"""OpenAPI: what kubectl looks for in it, and how it is kept and told anew."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from kaos.local.apiserver.builtin_kinds import builtin_kinds
from kaos.local.apiserver.openapi import V2_PROTOBUF, openapi_routes
from kaos.local.apiserver.registry import Kind, Registry

GVK = "x-kubernetes-group-version-kind"
AGENT = Kind(
    "kaos.tools",
    "v1alpha1",
    "Agent",
    "AgentList",
    "agents",
    "agent",
    subresources=frozenset({"status"}),
    crd="agents.kaos.tools",
    schema={
        "type": "object",
        "description": "An AI agent.",
        "required": ["spec"],
        "properties": {
            "metadata": {"type": "object"},
            "spec": {
                "type": "object",
                "properties": {"config": {"type": "object", "description": "How it behaves."}},
            },
        },
    },
)


class Server:
    def __init__(self) -> None:
        self.registry = Registry(builtin_kinds())
        self.registry.set_custom("agents.kaos.tools", [AGENT])
        routes = openapi_routes(self.registry, version="1.34.0")
        self.http = TestClient(Starlette(routes=routes), follow_redirects=False)

    def index(self) -> dict[str, str]:
        paths = self.http.get("/openapi/v3").json()["paths"]
        return {path: entry["serverRelativeURL"] for path, entry in paths.items()}

    def document(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(self.index()[path]).json()
        return found


@pytest.fixture
def server() -> Server:
    return Server()


def resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema or "allOf" in schema:
        ref = schema["$ref"] if "$ref" in schema else schema["allOf"][0]["$ref"]
        schema = document["components"]["schemas"][ref.removeprefix("#/components/schemas/")]
    return schema


def test_every_kind_has_a_schema_and_its_writes_check_fields(server: Server) -> None:
    """Without fieldValidation on PATCH kubectl apply wants --validate=false."""
    for kind in server.registry.kinds():
        path = f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"
        document = server.document(path)
        gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
        schemas = document["components"]["schemas"].values()
        assert any(gvk in schema.get(GVK, []) for schema in schemas), kind.kind
        operations = [op for p in document["paths"].values() for op in p.values()]
        mine = [op for op in operations if isinstance(op, dict) and op[GVK] == gvk]
        writes = [op for op in mine if op["x-kubernetes-action"] in ("post", "put", "patch")]
        assert writes, kind.kind
        for operation in writes:
            assert "fieldValidation" in {p["name"] for p in operation["parameters"]}


def test_every_reference_leads_somewhere(server: Server) -> None:
    for path in server.index():
        document = server.document(path)
        text = msgspec.json.encode(document).decode()
        refs = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
        assert refs <= document["components"]["schemas"].keys()


def test_operation_ids_are_unique(server: Server) -> None:
    for path in server.index():
        ids = [
            op["operationId"]
            for p in server.document(path)["paths"].values()
            for op in p.values()
            if isinstance(op, dict)
        ]
        assert len(ids) == len(set(ids))


def test_a_custom_kind_can_be_explained(server: Server) -> None:
    document = server.document("apis/kaos.tools/v1alpha1")
    agent = document["components"]["schemas"]["tools.kaos.v1alpha1.Agent"]
    assert agent["description"] == "An AI agent."
    assert agent["required"] == ["spec"]
    config = agent["properties"]["spec"]["properties"]["config"]
    assert config["description"] == "How it behaves."
    metadata = resolve(document, agent["properties"]["metadata"])
    owner = resolve(document, metadata["properties"]["ownerReferences"]["items"])
    assert "uid" in owner["required"]
    # kubectl explain finds the kind by these addresses.
    address = "/apis/kaos.tools/v1alpha1/namespaces/{namespace}/agents"
    assert document["paths"][address]["get"][GVK]["kind"] == "Agent"
    assert f"{address}/{{name}}/status" in document["paths"]


def test_the_schema_of_the_registry_is_not_touched(server: Server) -> None:
    server.document("apis/kaos.tools/v1alpha1")
    assert AGENT.schema is not None
    assert AGENT.schema["properties"]["metadata"] == {"type": "object"}


def test_strategic_merge_is_left_to_kubectls_own_types(server: Server) -> None:
    paths = server.document("apis/apps/v1")["paths"]
    patch = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert "application/apply-patch+yaml" in patch["requestBody"]["content"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]


def test_a_new_definition_changes_only_its_own_address(server: Server) -> None:
    before = server.index()
    changed = replace(AGENT, schema={"type": "object", "description": "Changed."})
    server.registry.set_custom("agents.kaos.tools", [changed])
    after = server.index()
    assert {path for path in after if after[path] != before[path]} == {"apis/kaos.tools/v1alpha1"}
    server.registry.set_custom("agents.kaos.tools", [])
    assert "apis/kaos.tools/v1alpha1" not in server.index()


def test_an_address_with_its_hash_may_be_kept_for_ever(server: Server) -> None:
    address = server.index()["apis/apps/v1"]
    kept = server.http.get(address)
    assert kept.headers["cache-control"] == "public, immutable"
    assert "expires" in kept.headers
    plain = server.http.get("/openapi/v3/apis/apps/v1")
    assert plain.headers["cache-control"] == "no-cache, private"
    assert plain.content == kept.content
    old = server.http.get("/openapi/v3/apis/apps/v1?hash=OLD")
    assert (old.status_code, old.headers["location"]) == (301, address)


@pytest.mark.parametrize("path", ["/openapi/v3", "/openapi/v3/api/v1", "/openapi/v2"])
def test_what_has_not_changed_is_not_sent_again(server: Server, path: str) -> None:
    tag = server.http.get(path).headers["etag"]
    again = server.http.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")


def test_an_unknown_group_is_not_found(server: Server) -> None:
    assert server.http.get("/openapi/v3/apis/nobody/v1").status_code == 404


def test_v2_names_every_kind(server: Server) -> None:
    document = server.http.get("/openapi/v2").json()
    told = {d[GVK][0]["kind"] for d in document["definitions"].values()}
    assert {k.kind for k in server.registry.kinds()} <= told


def fields(data: bytes) -> list[tuple[int, bytes]]:
    """Take a protobuf message of length-delimited fields apart."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key, length = varint(), varint()
        assert key & 7 == 2
        found.append((key >> 3, data[at : at + length]))
        at += length
    return found


def test_v2_in_protobuf_names_every_kind(server: Server) -> None:
    """kubectl checks a manifest of kind List against it; a missing kind is an error there."""
    asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = server.http.get("/openapi/v2", headers={"Accept": asked})
    assert answer.headers["content-type"] == V2_PROTOBUF
    document = dict(fields(answer.content))
    assert document[1] == b"2.0"
    told = set()
    for _, named in fields(document[9]):
        schema = dict(fields(dict(fields(named))[2]))
        extension = dict(fields(schema[31]))
        assert extension[1].decode() == GVK
        told.add(msgspec.json.decode(dict(fields(extension[2]))[2])[0]["kind"])
    assert {k.kind for k in server.registry.kinds()} <= told


def test_the_answers_content_type_is_one_that_go_can_parse() -> None:
    """With an "@" in it kubectl failed: unexpected content after media subtype."""
    assert "@" not in V2_PROTOBUF
