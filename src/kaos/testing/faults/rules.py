"""What can go wrong between a client and an API server, and which requests it happens to.

Guarantees: a fault is a value, so that a test reads like a list of what happens; each of them is
something that real servers, load balancers and networks do. The first rule that fits a request
and whose dice say so decides; no rule, no fault.
Does not: act. `FaultProxy` does what these say.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

Verb: TypeAlias = Literal["get", "list", "watch", "create", "update", "patch", "delete", "other"]
"""As in RBAC; a request that is not for a resource is "other"."""

_VERBS: Mapping[str, Verb] = {
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as the API understands it.

    Attributes:
        method: The HTTP method.
        path: The path.
        query: The parameters.
        verb: What is asked, as in RBAC.
        resource: The plural, e.g. ``deployments``; "" when no resource is asked for.
        group: Its API group, "" for the core group.
        namespace: The namespace, "" for none or all.
        name: The object's name, "" for a collection.
        subresource: e.g. ``status``.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    verb: Verb = "other"
    resource: str = ""
    group: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @classmethod
    def of(cls, method: str, path: str, query: Mapping[str, str] | None = None) -> "Asked":
        """Read a request."""
        query = query or {}
        parts = [unquote(part) for part in path.strip("/").split("/")]
        head = {"api": 2, "apis": 3}.get(parts[0], 0)
        if not head or len(parts) <= head:
            return cls(method, path, query)
        group = parts[1] if head == 3 else ""
        rest, namespace = parts[head:], ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource, name, subresource = (*rest, "", "")[:3]
        verb = _VERBS.get(method, "get" if name else "list")
        if verb in ("get", "list") and query.get("watch") in ("true", "1"):
            verb = "watch"
        return cls(method, path, query, verb, resource, group, namespace, name, subresource)

    @property
    def continued(self) -> bool:
        """Whether a further page of a list is asked for."""
        return bool(self.query.get("continue"))

    @property
    def streaming(self) -> bool:
        """Whether it is a streaming list: a watch that begins with all there is."""
        return self.verb == "watch" and self.query.get("sendInitialEvents") == "true"


@dataclass(frozen=True, slots=True)
class Refuse:
    """The answer is a `Status` that says no; the server is not asked."""

    status: int
    reason: str
    message: str
    retry_after: int = 0
    cause: str = ""

    def body(self) -> dict[str, Any]:
        """The Status."""
        details: dict[str, Any] = {}
        if self.cause:
            details["causes"] = [{"reason": self.cause, "message": self.message}]
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "details": details,
            "code": self.status,
        }

    def __str__(self) -> str:
        return f"{self.status} {self.reason}"


@dataclass(frozen=True, slots=True)
class Close:
    """The connection breaks without a word.

    Attributes:
        processed: Of a request: the server did what was asked, only its answer is lost.
        after: Of a watch: it works for so many seconds first.
    """

    processed: bool = False
    after: float = 0.0

    def __str__(self) -> str:
        return "close, processed" if self.processed else "close"


@dataclass(frozen=True, slots=True)
class Blackhole:
    """The connection stays open and nothing comes any more.

    Attributes:
        processed: Of a request: the server did what was asked.
        after: Of a watch: it works for so many seconds first.
    """

    processed: bool = False
    after: float = 0.0

    def __str__(self) -> str:
        return "blackhole"


@dataclass(frozen=True, slots=True)
class Delay:
    """Everything comes late: the answer, or each event of a watch."""

    seconds: float

    def __str__(self) -> str:
        return "delay"


@dataclass(frozen=True, slots=True)
class EndWatch:
    """A watch is accepted, works for `after` seconds, and ends as when its time is up."""

    after: float = 0.0

    def __str__(self) -> str:
        return "end of watch"


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """A watch is accepted, works for `after` seconds, and ends with an ERROR event."""

    says: Refuse
    after: float = 0.0

    def __str__(self) -> str:
        return f"ERROR event {self.says.status}"


@dataclass(frozen=True, slots=True)
class Stale:
    """A read is answered with what an earlier one of the same said.

    Attributes:
        age: How old the answer may be, in seconds.
        legal: Only where Kubernetes permits it: when the request asks for ``resourceVersion=0``
            (any version), or for one that the old answer is not behind. Otherwise any read is
            answered so, as no API server ever would: to see that a client survives it.
    """

    age: float = 30.0
    legal: bool = True

    def __str__(self) -> str:
        return "stale read"


Fault: TypeAlias = Refuse | Close | Blackhole | Delay | EndWatch | ErrorEvent | Stale

GONE = Refuse(410, "Expired", "too old resource version")
TOO_MANY_REQUESTS = Refuse(429, "TooManyRequests", "too many requests", retry_after=1)
INTERNAL_ERROR = Refuse(500, "InternalError", "an error on the server")
UNAVAILABLE = Refuse(503, "ServiceUnavailable", "the server is currently unable to handle it")
TOO_LARGE_VERSION = Refuse(
    504, "Timeout", "Too large resource version", retry_after=1, cause="ResourceVersionTooLarge"
)
NO_STREAMING_LISTS = Refuse(422, "Invalid", "sendInitialEvents is forbidden for watch")
"""What servers before Kubernetes 1.32 say to a streaming list."""


@dataclass(slots=True)
class Rule:
    """A fault, and the requests that it happens to: all given conditions must hold.

    Attributes:
        fault: What happens.
        verbs: Only these verbs; default: all.
        resource: Only this plural.
        when: Any other condition.
        probability: How often, from 0 to 1, by the proxy's seeded dice.
        count: How many times at most; it is counted down.
    """

    fault: Fault
    verbs: tuple[Verb, ...] = ()
    resource: str = ""
    when: Callable[[Asked], bool] | None = None
    probability: float = 1.0
    count: int | None = None

    def fits(self, asked: Asked) -> bool:
        """Whether the fault may happen to this request, the dice aside."""
        if self.count == 0 or (self.verbs and asked.verb not in self.verbs):
            return False
        if self.resource and asked.resource != self.resource:
            return False
        if isinstance(self.fault, EndWatch | ErrorEvent) and asked.verb != "watch":
            return False
        if isinstance(self.fault, Stale) and asked.verb not in ("get", "list"):
            return False
        return self.when is None or self.when(asked)


def error_line(says: Refuse) -> bytes:
    """The line of a watch that tells an error."""
    return json.dumps({"type": "ERROR", "object": says.body()}).encode() + b"\n"
