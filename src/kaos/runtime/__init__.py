"""A controller runtime for async Python: all that an author of a reconciler needs.

Guarantees: the names below are the public interface; everything else may change.
The floors, each knowing only those below it: transport < codec < watch < cache < queue < controller
< manager.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from kaos.runtime.apply import Applied, ApplySet
from kaos.runtime.backoff import Backoff
from kaos.runtime.cache import Cache
from kaos.runtime.client import Client
from kaos.runtime.codec import Object, ObjectMeta, OwnerReference
from kaos.runtime.conditions import condition, find_condition, is_true, merge_conditions, timestamp
from kaos.runtime.config import ClusterConfig
from kaos.runtime.controller import Controller
from kaos.runtime.declare import Owns, Predicate, Reconcile, Reconciler, Result, Watches
from kaos.runtime.errors import (
    AlreadyExists,
    ApiError,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    LeadershipLost,
    NameConflict,
    NotFound,
    NotLeader,
    RuntimeFailure,
    TerminalError,
    TooManyRequests,
    Unauthorized,
    UnknownKind,
    Unreachable,
)
from kaos.runtime.events import EventRecorder
from kaos.runtime.health import HttpServer
from kaos.runtime.kr8s_objects import to_kr8s
from kaos.runtime.leader import LeaderElection
from kaos.runtime.manager import Manager, run_until_signal
from kaos.runtime.owners import (
    controller_of,
    is_controlled_by,
    owner_reference,
    set_controller_reference,
)
from kaos.runtime.predicates import anything, content_changed, spec_changed
from kaos.runtime.resources import (
    CONFIG_MAP,
    CUSTOM_RESOURCE_DEFINITION,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    EVENT,
    GATEWAY,
    HORIZONTAL_POD_AUTOSCALER,
    HTTP_ROUTE,
    LEASE,
    NAMESPACE,
    NETWORK_POLICY,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    Request,
    Resource,
    ResourceType,
)
from kaos.runtime.selection import Selection, without
from kaos.runtime.watching import Seen, watch
from kaos.runtime.writes import create_or_update, retry_on_conflict

if TYPE_CHECKING:
    from kaos.runtime.definition import CustomResource, crd
    from kaos.runtime.program import Setup, define, run

__all__ = [
    "CONFIG_MAP",
    "CUSTOM_RESOURCE_DEFINITION",
    "DEPLOYMENT",
    "ENDPOINT_SLICE",
    "EVENT",
    "GATEWAY",
    "HORIZONTAL_POD_AUTOSCALER",
    "HTTP_ROUTE",
    "LEASE",
    "NAMESPACE",
    "NETWORK_POLICY",
    "NODE",
    "PERSISTENT_VOLUME_CLAIM",
    "POD",
    "POD_DISRUPTION_BUDGET",
    "REPLICA_SET",
    "SECRET",
    "SERVICE",
    "SERVICE_ACCOUNT",
    "AlreadyExists",
    "ApiError",
    "Applied",
    "ApplySet",
    "Backoff",
    "Cache",
    "Cause",
    "Client",
    "ClusterConfig",
    "Conflict",
    "Controller",
    "CustomResource",
    "EventRecorder",
    "Forbidden",
    "Gone",
    "HttpServer",
    "Invalid",
    "LeaderElection",
    "LeadershipLost",
    "Manager",
    "NameConflict",
    "NotFound",
    "NotLeader",
    "Object",
    "ObjectMeta",
    "OwnerReference",
    "Owns",
    "Predicate",
    "Reconcile",
    "Reconciler",
    "Request",
    "Resource",
    "ResourceType",
    "Result",
    "RuntimeFailure",
    "Seen",
    "Selection",
    "Setup",
    "TerminalError",
    "TooManyRequests",
    "Unauthorized",
    "UnknownKind",
    "Unreachable",
    "Watches",
    "anything",
    "condition",
    "content_changed",
    "controller_of",
    "crd",
    "create_or_update",
    "define",
    "find_condition",
    "is_controlled_by",
    "is_true",
    "merge_conditions",
    "owner_reference",
    "retry_on_conflict",
    "run",
    "run_until_signal",
    "set_controller_reference",
    "spec_changed",
    "timestamp",
    "to_kr8s",
    "watch",
    "without",
]

_WITH_PYDANTIC = {
    "CustomResource": "definition",
    "crd": "definition",
    "Setup": "program",
    "define": "program",
    "run": "program",
}


def __getattr__(name: str) -> object:
    # Pydantic takes a fifth of a second to import, which a command that only reads does not need.
    if (module := _WITH_PYDANTIC.get(name)) is not None:
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
