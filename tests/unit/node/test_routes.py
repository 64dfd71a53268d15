"""HTTPRoutes as a table."""

from typing import Any

import pytest

from kaos.local.node.routes import RouteTable, Unsupported, duration, rules_of


def route(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    created = spec.pop("created", "2026-01-01T00:00:00Z")
    return {
        "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
        "spec": {"rules": list(rules), **spec},
    }


def rule(path: str = "/", kind: str = "PathPrefix", **fields: Any) -> dict[str, Any]:
    match = {"path": {"type": kind, "value": path}, **fields.pop("match", {})}
    return {"matches": [match], "backendRefs": [{"name": "web", "port": 80}], **fields}


def found(table: RouteTable, path: str, host: str = "localhost", **headers: str) -> str | None:
    hit = table.find(host, path, headers.pop("method", "GET"), headers)
    return hit.route[1] if hit else None


def rewrite(kind: str, value: str) -> dict[str, Any]:
    key = "replacePrefixMatch" if kind == "ReplacePrefixMatch" else "replaceFullPath"
    return {"type": "URLRewrite", "urlRewrite": {"path": {"type": kind, key: value}}}


def test_the_longest_prefix_wins_and_prefixes_are_whole_path_elements() -> None:
    table = RouteTable.of(
        [
            route("all", rule("/")),
            route("a", rule("/a")),
            route("ab", rule("/a/b/")),
            route("exact", rule("/a", "Exact")),
        ]
    )
    assert [found(table, p) for p in ("/a", "/a/", "/a/b", "/a/bc", "/ab", "/a/b/c")] == [
        "exact", "a", "ab", "a", "all", "ab",
    ]  # fmt: skip


def test_no_match_is_none() -> None:
    assert found(RouteTable.of([route("a", rule("/a"))]), "/b") is None
    assert found(RouteTable(), "/") is None


def test_hosts_methods_and_headers() -> None:
    table = RouteTable.of(
        [
            route("any", rule("/")),
            route("wild", rule("/"), hostnames=["*.example.org"]),
            route("host", rule("/"), hostnames=["a.example.org"]),
            route("post", rule("/", match={"method": "POST"})),
            route("header", rule("/", match={"headers": [{"name": "v", "value": "2"}]})),
        ]
    )
    assert found(table, "/", "A.example.org") == "host"
    assert found(table, "/", "b.example.org") == "wild"
    assert found(table, "/", "example.org") == "any"
    assert found(table, "/", "localhost", method="POST") == "post"
    assert found(table, "/", "localhost", v="2") == "header"


def test_the_older_route_wins_and_then_the_name() -> None:
    table = RouteTable.of(
        [route("b", rule("/x")), route("a", rule("/x")), route("old", rule("/x"), created="2020")]
    )
    assert found(table, "/x") == "old"
    assert found(RouteTable.of([route("b", rule("/x")), route("a", rule("/x"))]), "/x") == "a"


@pytest.mark.parametrize(
    ("prefix", "replacement", "path", "sent"),
    [
        ("/a", "/", "/a", "/"),
        ("/a", "/", "/a/", "/"),
        ("/a", "/", "/a/v1/x", "/v1/x"),
        ("/a/", "/", "/a/v1", "/v1"),
        ("/a", "/b", "/a/c", "/b/c"),
        ("/a", "/b/", "/a/c", "/b/c"),
        ("/a", "/b", "/a", "/b"),
        ("/", "/b", "/c", "/b/c"),
        ("/a", "/", "/a/%2Fx", "/%2Fx"),
    ],
)
def test_prefix_rewrites(prefix: str, replacement: str, path: str, sent: str) -> None:
    filters = [rewrite("ReplacePrefixMatch", replacement)]
    (only,) = rules_of(route("r", rule(prefix, filters=filters)))
    assert only.rewritten(path) == sent


def test_other_rewrites() -> None:
    (full,) = rules_of(route("r", rule("/a", filters=[rewrite("ReplaceFullPath", "/b")])))
    assert full.rewritten("/a/c") == "/b"
    (plain,) = rules_of(route("r", rule("/a")))
    assert plain.rewritten("/a/c") == "/a/c"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (rule("/", "RegularExpression"), "path matches of type RegularExpression"),
        (rule("/", match={"queryParams": [{"name": "a", "value": "b"}]}), "query parameters"),
        (rule("/", filters=[{"type": "RequestMirror"}]), "filters of type RequestMirror"),
        (rule("/", backendRefs=[{"kind": "Bucket", "name": "b"}]), "backends of kind Bucket"),
        (rule("/", backendRefs=[{"name": "b"}]), "backend b has no port"),
        (rule("/", timeouts={"request": "soon"}), "'soon' is no duration"),
        (
            rule(
                "/", match={"headers": [{"type": "RegularExpression", "name": "a", "value": "b"}]}
            ),
            "header matches by regular expression",
        ),
    ],
)
def test_what_is_not_supported_is_said_and_not_half_done(broken: dict[str, Any], says: str) -> None:
    body = route("r", rule("/good"), broken)
    with pytest.raises(Unsupported, match=says):
        rules_of(body)
    assert RouteTable.of([body]).rules == ()


@pytest.mark.parametrize(
    "broken",
    [
        {"backendRefs": [{"name": "web", "port": "http"}]},
        {"backendRefs": [{"port": 80}]},
        {"backendRefs": ["web"]},
        {"matches": 5},
        {"timeouts": {"request": 5}},
    ],
)
def test_a_route_that_is_none_does_not_take_the_others_along(broken: dict[str, Any]) -> None:
    body = route("r", broken)
    with pytest.raises(Unsupported, match="has not the form of an HTTPRoute"):
        rules_of(body)
    assert [rule.path for rule in RouteTable.of([body, route("s", rule("/s"))]).rules] == ["/s"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120s", 120), ("1m30s", 90), ("500ms", 0.5), ("1h", 3600), ("0s", None), (None, None),
        ("2m5ms", 120.005),
    ],
)  # fmt: skip
def test_durations(text: str | None, seconds: float | None) -> None:
    assert duration(text) == seconds


def test_the_listing_is_for_people() -> None:
    table = RouteTable.of([route("b", rule("/b")), route("a", rule("/a"))])
    assert table.listing() == [("/a", "ns/web:80"), ("/b", "ns/web:80")]
