"""HTTPRoutes as a table: which rule a request belongs to, and what is done to it. Pure.

Guarantees: the precedence of the Gateway API (exact path, then the longest prefix, method, number
of headers, the older route, the name), hostnames with a leading wildcard, prefixes matched by whole
path elements, and `URLRewrite` with `ReplacePrefixMatch` or `ReplaceFullPath`.

Does not: regular expression paths, and filters other than URLRewrite, RequestHeaderModifier and
ResponseHeaderModifier. A rule with anything else is refused as a whole (condition Accepted=False),
for half of a rule can do harm: it might be the half without the check.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")
_FILTERS = ("URLRewrite", "RequestHeaderModifier", "ResponseHeaderModifier")


MALFORMED = (AttributeError, LookupError, TypeError, ValueError)
"""What reading a route raises that has not the form of one."""


class Unsupported(ValueError):  # noqa: N818
    """A route asks for something that this gateway does not do; the message says what."""


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """Set, add and remove headers."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "HeaderChange":
        """Read a header modifier filter."""

        def pairs(name: str) -> tuple[tuple[str, str], ...]:
            return tuple((h["name"], h["value"]) for h in body.get(name) or [])

        return cls(pairs("set"), pairs("add"), tuple(body.get("remove") or []))


@dataclass(frozen=True, slots=True)
class BackendRef:
    """A Service's port, and its share of the requests."""

    namespace: str
    name: str
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Rule:
    """One match of one rule of one route."""

    route: tuple[str, str]
    """Namespace and name."""
    hosts: tuple[str, ...]
    path: str
    exact: bool
    method: str
    headers: tuple[tuple[str, str], ...]
    backends: tuple[BackendRef, ...]
    created: str
    rewrite_prefix: str | None = None
    rewrite_path: str | None = None
    rewrite_host: str | None = None
    request_headers: HeaderChange = field(default_factory=HeaderChange)
    response_headers: HeaderChange = field(default_factory=HeaderChange)
    timeout: float | None = None

    def accepts(self, host: str, path: str, method: str, headers: Mapping[str, str]) -> bool:
        """Whether a request matches."""
        return (
            self._accepts_path(path)
            and (not self.method or self.method == method)
            and (not self.hosts or any(_host_matches(wanted, host) for wanted in self.hosts))
            and all(headers.get(name) == value for name, value in self.headers)
        )

    def _accepts_path(self, path: str) -> bool:
        if self.exact:
            return path == self.path
        prefix = self.path.rstrip("/")
        return path == prefix or path.startswith(prefix + "/")

    def rewritten(self, path: str) -> str:
        """The path to send to the backend."""
        if self.rewrite_path is not None:
            return self.rewrite_path
        if self.rewrite_prefix is None:
            return path
        rest = path[len(self.path.rstrip("/")) :].lstrip("/")
        return f"{self.rewrite_prefix.rstrip('/')}/{rest}" if rest else self.rewrite_prefix or "/"

    @property
    def removed_prefix(self) -> str:
        """What `rewritten` takes off a path without putting anything in its place."""
        whole = self.rewrite_path is None and self.rewrite_prefix == "/"
        return self.path.rstrip("/") if whole and not self.exact else ""

    @property
    def precedence(self) -> tuple[object, ...]:
        """Sorts the rule that wins first."""
        wildcards = all(host.startswith("*") for host in self.hosts)
        longest = max((len(host) for host in self.hosts), default=0)
        return (
            wildcards,
            -longest,
            not self.exact,
            -len(self.path),
            not self.method,
            -len(self.headers),
            self.created,
            self.route,
        )


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All rules, in the order in which they are tried."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, routes: Iterable[Mapping[str, Any]]) -> "RouteTable":
        """The table of routes; those that cannot be served are left out (see `rules_of`)."""
        found: list[Rule] = []
        for route in routes:
            try:
                found += rules_of(route)
            except Unsupported:
                continue  # said in the route's status
        return cls(tuple(sorted(found, key=lambda rule: rule.precedence)))

    def find(self, host: str, path: str, method: str, headers: Mapping[str, str]) -> Rule | None:
        """The rule for a request; the host without its port."""
        host = host.lower()
        return next((r for r in self.rules if r.accepts(host, path, method, headers)), None)

    def listing(self) -> list[tuple[str, str]]:
        """(path, backend) of each rule, for people."""
        return sorted(
            {
                (rule.path, f"{backend.namespace}/{backend.name}:{backend.port}")
                for rule in self.rules
                for backend in rule.backends
            }
        )


def rules_of(route: Mapping[str, Any]) -> list[Rule]:
    """The rules of a route.

    Raises:
        Unsupported: It asks for something that this gateway does not do.
    """
    try:
        return _rules_of(route)
    except Unsupported:
        raise
    except MALFORMED as error:
        # One route that is none must not keep the gateway from serving the others.
        raise Unsupported(f"it has not the form of an HTTPRoute ({error!r})") from error


def _rules_of(route: Mapping[str, Any]) -> list[Rule]:
    metadata, spec = route["metadata"], route.get("spec") or {}
    hosts = tuple(str(host).lower() for host in spec.get("hostnames") or [])
    rules = []
    for body in spec.get("rules") or [{}]:
        filters = _filters(body)
        backends = tuple(_backends(body, metadata["namespace"]))
        timeout = duration((body.get("timeouts") or {}).get("request"))
        for match in body.get("matches") or [{}]:
            path = match.get("path") or {}
            kind = path.get("type", "PathPrefix")
            if kind not in ("PathPrefix", "Exact"):
                raise Unsupported(f"path matches of type {kind} are not supported")
            if match.get("queryParams"):
                raise Unsupported("matches on query parameters are not supported")
            rules.append(
                Rule(
                    route=(metadata["namespace"], metadata["name"]),
                    hosts=hosts,
                    path=path.get("value", "/"),
                    exact=kind == "Exact",
                    method=match.get("method", ""),
                    headers=tuple(_header_matches(match)),
                    backends=backends,
                    created=metadata.get("creationTimestamp", ""),
                    timeout=timeout,
                    **filters,
                )
            )
    return rules


def _header_matches(match: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for header in match.get("headers") or []:
        if header.get("type", "Exact") != "Exact":
            raise Unsupported("header matches by regular expression are not supported")
        yield header["name"], header["value"]


def _filters(body: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in body.get("filters") or []:
        kind = item.get("type")
        if kind not in _FILTERS:
            raise Unsupported(f"filters of type {kind} are not supported")
        if kind == "RequestHeaderModifier":
            found["request_headers"] = HeaderChange.of(item.get("requestHeaderModifier") or {})
        elif kind == "ResponseHeaderModifier":
            found["response_headers"] = HeaderChange.of(item.get("responseHeaderModifier") or {})
        else:
            rewrite = item.get("urlRewrite") or {}
            path = rewrite.get("path") or {}
            found["rewrite_host"] = rewrite.get("hostname")
            if path.get("type") == "ReplacePrefixMatch":
                found["rewrite_prefix"] = path.get("replacePrefixMatch") or "/"
            elif path.get("type") == "ReplaceFullPath":
                found["rewrite_path"] = path.get("replaceFullPath") or "/"
    return found


def _backends(body: Mapping[str, Any], namespace: str) -> Iterator[BackendRef]:
    for ref in body.get("backendRefs") or []:
        kind = ref.get("kind", "Service")
        if kind != "Service" or ref.get("group"):
            raise Unsupported(f"backends of kind {kind} are not supported, only Services")
        if ref.get("port") is None:
            raise Unsupported(f"backend {ref.get('name')} has no port")
        weight = ref.get("weight")
        yield BackendRef(
            namespace=ref.get("namespace") or namespace,
            name=ref["name"],
            port=int(ref["port"]),
            weight=1 if weight is None else int(weight),
        )


def _host_matches(wanted: str, host: str) -> bool:
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and len(host) > len(wanted) - 1
    return wanted == host


def duration(text: str | None) -> float | None:
    """Seconds of a Gateway API duration ("1h2m3s4ms"); None for none and for "0s" (no limit).

    Raises:
        Unsupported: It is not a duration.
    """
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Unsupported(f"{text!r} is no duration (such as 90s or 1m30s)")
    hours, minutes, seconds, milliseconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds + milliseconds / 1000 or None
