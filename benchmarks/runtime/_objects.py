"""The objects of the benchmark: an agent of about 2.5 KB with managedFields, as JSON text.

The text is fixed but for a few numbers, which are spliced in: building one costs a microsecond, so
the server is never what is measured.
"""

import json
from collections.abc import Mapping

GROUP, VERSION, KIND, PLURAL = "bench.kaos.tools", "v1", "Agent", "agents"
API_VERSION = f"{GROUP}/{VERSION}"
COLLECTION = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
NAMESPACES = 20


def namespace_of(number: int) -> str:
    return f"team-{number % NAMESPACES:02}"


def name_of(number: int) -> str:
    return f"agent-{number:06}"


def number_of(name: str) -> int:
    return int(name.removeprefix("agent-"))


def _managed(
    manager: str, fields: Mapping[str, object], subresource: str = ""
) -> Mapping[str, object]:
    return {
        "manager": manager,
        "operation": "Apply" if subresource else "Update",
        "apiVersion": API_VERSION,
        "time": "2026-11-22T15:04:05Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    } | ({"subresource": subresource} if subresource else {})


_SPEC_FIELDS: Mapping[str, object] = {
    "f:metadata": {"f:annotations": {".": {}, "f:kaos.tools/owner": {}}, "f:labels": {".": {}}},
    "f:spec": {
        ".": {},
        "f:config": {".": {}, "f:description": {}, "f:instructions": {}, "f:maxSteps": {}},
        "f:mcpServers": {},
        "f:model": {},
        "f:modelAPI": {},
        "f:replicas": {},
        "f:round": {},
    },
}
_CONDITION: dict[str, object] = {
    ".": {},
    "f:lastTransitionTime": {},
    "f:message": {},
    "f:reason": {},
    "f:status": {},
}
_STATUS_FIELDS: Mapping[str, object] = {
    "f:status": {
        "f:conditions": {
            ".": {},
            'k:{"type":"Available"}': _CONDITION,
            'k:{"type":"Progressing"}': _CONDITION,
            'k:{"type":"Ready"}': _CONDITION,
        },
        "f:endpoint": {},
        "f:observedRound": {},
    }
}
_INSTRUCTIONS = (
    "Answer questions about orders and deliveries. Look an order up before you speak about it, "
    "name its number in every answer, never guess a date, and hand the customer over to a person "
    "when the tools disagree or the customer asks for it twice. Answer in the language of the "
    "question, in at most five sentences, and end with the one thing the customer can do next. "
    "Refunds above fifty need the consent of a person; ask for it by the tool and say that you do."
)


def _condition(kind: str) -> dict[str, object]:
    return {
        "type": kind,
        "status": "True",
        "reason": "MinimumReplicasAvailable",
        "message": "1 of 1 replicas are available",
        "lastTransitionTime": "2026-11-22T15:04:11Z",
    }


_TEMPLATE = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {
        "name": "@name",
        "namespace": "@namespace",
        "uid": "@uid",
        "resourceVersion": "@version",
        "generation": "@@generation",
        "creationTimestamp": "2026-11-22T15:04:05Z",
        "labels": {
            "app.kubernetes.io/name": "agent",
            "app.kubernetes.io/managed-by": "bench",
            "team": "@namespace",
        },
        "annotations": {"kaos.tools/owner": "platform@example.com"},
        "managedFields": [
            _managed("kubectl-client-side-apply", _SPEC_FIELDS),
            _managed("controller", _STATUS_FIELDS, "status"),
        ],
    },
    "spec": {
        "round": "@@round",
        "modelAPI": "shared-models",
        "model": "smollm2:135m",
        "replicas": 1,
        "mcpServers": ["orders", "deliveries", "search"],
        "config": {
            "description": "Support for orders and deliveries",
            "instructions": _INSTRUCTIONS,
            "maxSteps": 8,
        },
    },
    "status": {
        "observedRound": "@@observed",
        "endpoint": "http://agent.team.svc.cluster.local:8000",
        "conditions": [_condition(kind) for kind in ("Available", "Progressing", "Ready")],
    },
}


def _splicable() -> bytes:
    text = json.dumps(_TEMPLATE, separators=(",", ":")).replace("%", "%%")
    for name in ("generation", "round", "observed"):
        text = text.replace(f'"@@{name}"', f"%({name})d")
    text = text.replace("@version", "%(version)d").replace("@uid", "%(uid)s")
    return text.replace("@namespace", "%(namespace)s").replace("@name", "%(name)s").encode()


_TEXT = _splicable()
_MARKS = (987654321, 987654322, 987654323, 987654324)


class Objects:
    """The state of all objects, and the text of each."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.version = 1000 + count
        self.rounds = [0] * count
        self.observed = [-1] * count
        self.versions = list(range(1000, 1000 + count))
        # Name, namespace and uid never change: what is left to splice are four numbers.
        named = (
            _TEXT
            % {
                b"name": name_of(number).encode(),
                b"namespace": namespace_of(number).encode(),
                b"uid": b"7d3f0c52-0000-4000-8000-%012d" % number,
                b"version": _MARKS[0],
                b"generation": _MARKS[1],
                b"round": _MARKS[2],
                b"observed": _MARKS[3],
            }
            for number in range(count)
        )
        self._texts = [_cut(text) for text in named]

    def text(self, number: int) -> bytes:
        head, version_end, generation_end, round_end, tail = self._texts[number]
        spec = self.rounds[number]
        return b"%s%d%s%d%s%d%s%d%s" % (
            head,
            self.versions[number],
            version_end,
            spec + 1,
            generation_end,
            spec,
            round_end,
            self.observed[number],
            tail,
        )

    def edit(self, number: int) -> None:
        """A user changes the spec."""
        self.version += 1
        self.versions[number] = self.version
        self.rounds[number] += 1

    def observe(self, number: int, seen: int) -> bool:
        """A controller writes the status; False when that changes nothing."""
        if self.observed[number] == seen:
            return False
        self.version += 1
        self.versions[number] = self.version
        self.observed[number] = seen
        return True


_shared: dict[bytes, bytes] = {}


def _cut(text: bytes) -> tuple[bytes, ...]:
    parts, rest = [], text
    for mark in _MARKS:
        part, rest = rest.split(b"%d" % mark, 1)
        parts.append(part)
    parts.append(rest)
    # Most parts are the same text in all objects.
    return tuple(_shared.setdefault(part, part) for part in parts)
