"""The controllers of KAOS: one reconciler a kind, on `kaos.runtime`.

`controllers(manager, settings)` is all that a process needs. Nothing here knows whether the cluster
is a real one or the embedded one.
"""

from functools import partial

from kaos.api import MCPServer, Workload
from kaos.reconcilers import mcp_query
from kaos.reconcilers.agent import AgentReconciler
from kaos.reconcilers.mcpserver import MCPServerReconciler
from kaos.reconcilers.modelapi import ModelAPIReconciler
from kaos.reconcilers.server_tools import Ask, ServerTools
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


def controllers(
    manager: Manager, settings: Settings, *, ask: Ask = mcp_query.list_tools
) -> list[Controller]:
    """The controllers of the three kinds, ready to be added to the manager.

    Args:
        manager: that is to run them.
        settings: of the controller.
        ask: how an MCP server is asked for its tools.
    """
    concerns = Concerns(manager.cache, settings)
    owns = [
        Owns(kind, kind == HTTP_ROUTE, predicate=None if kind in TELLING else content_changed)
        for kind in CHILD_KINDS
    ]
    tools = ServerTools(manager.cache, settings, ask)
    found: dict[type[Workload], Controller] = {}
    for reconciler in (
        ModelAPIReconciler(manager, settings),
        MCPServerReconciler(manager, settings, tools),
        AgentReconciler(manager, settings),
    ):
        kind = reconciler.MODEL
        claims = [
            Watches(o.resource, reconciler.claimants, o.optional, predicate=content_changed)
            for o in owns
        ]
        found[kind] = Controller(
            kind.KIND.lower(),
            reconciler,
            for_=kind,
            owns=owns,
            watches=[*claims, *concerns.of(kind)],
            workers=WORKERS,
        )
    news = partial(found[MCPServer].enqueue, cause="its tools are known")
    return [*found.values(), tools.controller(news)]


__all__ = ["FIELD_MANAGER", "Settings", "controllers"]
