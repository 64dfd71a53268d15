"""The controllers of KAOS: one reconciler a kind, on `kaos.runtime`.

`controllers(manager, settings)` is all that a process needs. Nothing here knows whether the cluster
is a real one or the embedded one.
"""

from kaos.reconcilers.agent import AgentReconciler
from kaos.reconcilers.mcpserver import MCPServerReconciler
from kaos.reconcilers.modelapi import ModelAPIReconciler
from kaos.reconcilers.settings import Settings
from kaos.reconcilers.watches import Concerns
from kaos.reconcilers.workload import CHILD_KINDS
from kaos.runtime import (
    DEPLOYMENT,
    HTTP_ROUTE,
    Controller,
    Manager,
    Owns,
    Watches,
    content_changed,
)

FIELD_MANAGER = "kaos-controller"
WORKERS = 8
TELLING = (DEPLOYMENT, HTTP_ROUTE)
"""Children whose status is read; that of an autoscaler changes every 15 seconds for nothing."""


def controllers(manager: Manager, settings: Settings) -> list[Controller]:
    """The controllers of the three kinds, ready to be added to the manager."""
    concerns = Concerns(manager.cache, settings)
    owns = [
        Owns(kind, kind == HTTP_ROUTE, predicate=None if kind in TELLING else content_changed)
        for kind in CHILD_KINDS
    ]
    found = []
    for kind in (ModelAPIReconciler, MCPServerReconciler, AgentReconciler):
        reconciler = kind(manager, settings)
        claims = [
            Watches(o.resource, reconciler.claimants, o.optional, predicate=content_changed)
            for o in owns
        ]
        controller = Controller(
            kind.MODEL.KIND.lower(),
            reconciler,
            for_=kind.MODEL,
            owns=owns,
            watches=[*claims, *concerns.of(kind.MODEL)],
            workers=WORKERS,
        )
        found.append(controller)
    return found


__all__ = ["FIELD_MANAGER", "Settings", "controllers"]
