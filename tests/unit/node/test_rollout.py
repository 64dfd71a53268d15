"""The planner of Deployments, by rules and by example."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kaos.local.node.rollout import Bounds, PodFacts, plan, pod_facts, template_hash
from kaos.local.node.status import parse_timestamp

pytestmark = pytest.mark.process

HALF = {"maxSurge": "50%", "maxUnavailable": 9}
NOW = parse_timestamp("2026-01-01T00:01:00Z")


def pods(template: str, count: int, **facts: Any) -> list[PodFacts]:
    ready = facts.get("available", False)
    return [
        PodFacts(f"{template}-{i}", template, ready=ready, phase="Running", **facts)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Bounds(1, 1, 0)),
        ({"replicas": 0}, Bounds(0, 0, 0)),
        ({"replicas": 10}, Bounds(10, 3, 2)),
        (
            {"replicas": 4, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            Bounds(4, 0, 1),
        ),
        (
            {
                "replicas": 3,
                "strategy": {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": 9}},
            },
            Bounds(3, 2, 3),
        ),
        ({"replicas": 2, "strategy": {"type": "Recreate"}}, Bounds(2, 0, 2, recreate=True)),
    ],
)
def test_bounds(spec: dict[str, Any], expected: Bounds) -> None:
    found = Bounds.of(spec)
    if spec.get("replicas") == 0:
        assert (found.replicas, found.surge) == (0, 0)
    else:
        assert found == expected


def test_the_hash_names_the_content_and_not_the_order() -> None:
    assert template_hash({"a": 1, "b": 2}) == template_hash({"b": 2, "a": 1})
    assert template_hash({"a": 1}) != template_hash({"a": 2})


def test_surge_lets_new_pods_come_before_old_ones_go() -> None:
    step = plan(Bounds(1, 1, 0), "new", pods("old", 1, available=True))
    assert (step.create, step.delete) == (1, ())
    both = [*pods("old", 1, available=True), *pods("new", 1)]
    assert plan(Bounds(1, 1, 0), "new", both) == plan(Bounds(1, 1, 0), "new", both)
    assert plan(Bounds(1, 1, 0), "new", both).delete == ()
    done = [*pods("old", 1, available=True), *pods("new", 1, available=True)]
    assert plan(Bounds(1, 1, 0), "new", done).delete == ("old-0",)


def test_an_old_pod_that_serves_nobody_goes_at_once() -> None:
    sick = [*pods("old", 1), *pods("new", 1, available=True)]
    assert plan(Bounds(1, 1, 0), "new", sick).delete == ("old-0",)


def test_recreate_waits_for_the_last_old_pod_to_be_gone() -> None:
    bounds = Bounds.of({"strategy": {"type": "Recreate"}})
    old = pods("old", 1, available=True)
    assert plan(bounds, "new", old).delete == ("old-0",)
    assert plan(bounds, "new", old).create == 0
    going = [replace(old[0], deleting=True)]
    assert plan(bounds, "new", going).create == 0
    assert plan(bounds, "new", []).create == 1


def test_a_paused_deployment_begins_no_rollout_but_shrinks() -> None:
    bounds = Bounds(1, 1, 0, paused=True)
    assert plan(bounds, "new", pods("old", 1, available=True)).create == 0
    assert len(plan(bounds, "new", pods("old", 3, available=True)).delete) == 2


def test_scaling_down_takes_what_is_missed_least() -> None:
    running = pods("t", 2, available=True)
    pending = PodFacts("pending", "t", phase="Pending")
    unassigned = PodFacts("unassigned", "t", assigned=False)
    cheap = replace(running[0], name="cheap", deletion_cost=-1)
    everything = [*running, cheap, pending, unassigned]
    order = [set(plan(Bounds(left, 0, 1), "t", everything).delete) for left in range(4, 1, -1)]
    assert order == [
        {"unassigned"},
        {"unassigned", "pending"},
        {"unassigned", "pending", "cheap"},
    ]


def test_ended_pods_are_removed_and_replaced() -> None:
    step = plan(Bounds(1, 1, 0), "t", [PodFacts("dead", "t", finished=True)])
    assert (step.create, step.delete) == (1, ("dead",))


def test_facts_are_read_from_a_pod() -> None:
    body = {
        "metadata": {
            "name": "p",
            "labels": {"pod-template-hash": "t"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": "5"},
        },
        "spec": {"nodeName": "local"},
        "status": {
            "phase": "Running",
            "containerStatuses": [{"restartCount": 2}],
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "lastTransitionTime": "2026-01-01T00:00:50Z",
                }
            ],
        },
    }
    facts = pod_facts(body, min_ready_seconds=0, now=NOW)
    assert (facts.ready, facts.available, facts.restarts, facts.deletion_cost) == (True, True, 2, 5)
    assert not pod_facts(body, min_ready_seconds=11, now=NOW).available
    assert pod_facts(body, min_ready_seconds=10, now=NOW).available


class Rollout(RuleBasedStateMachine):
    """Pods come, become ready, break and go in any order while the planner plans."""

    @initialize(
        replicas=st.integers(0, 6),
        surge=st.integers(0, 3),
        unavailable=st.integers(0, 3),
        recreate=st.booleans(),
    )
    def begin(self, replicas: int, surge: int, unavailable: int, recreate: bool) -> None:
        strategy: dict[str, Any] = {
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}
        }
        if recreate:
            strategy = {"type": "Recreate"}
        self.spec: dict[str, Any] = {"replicas": replicas, "strategy": strategy}
        self.template = "t0"
        self.pods: dict[str, PodFacts] = {}
        self.number = 0

    @property
    def bounds(self) -> Bounds:
        return Bounds.of(self.spec)

    def active(self) -> list[PodFacts]:
        return [pod for pod in self.pods.values() if pod.active]

    @rule()
    def step(self) -> None:
        bounds = self.bounds
        before = self.active()
        available = sum(pod.available for pod in before)
        found = plan(bounds, self.template, list(self.pods.values()))
        deleted = [self.pods[name] for name in found.delete]
        assert len(set(found.delete)) == len(found.delete)
        if found.create:
            remaining = len(before) - sum(pod.active for pod in deleted)
            assert remaining + found.create <= bounds.replicas + bounds.surge
        if bounds.recreate and found.create:
            assert all(p.template == self.template for p in self.pods.values() if not p.finished)
        lost = sum(pod.available for pod in deleted)
        surplus_new = max(0, sum(p.template == self.template for p in before) - bounds.replicas)
        if lost and not bounds.recreate and not surplus_new:
            assert available - lost >= bounds.replicas - bounds.unavailable
        for name in found.delete:
            self.pods[name] = replace(self.pods[name], deleting=True)
        for _ in range(found.create):
            self.number += 1
            name = f"p{self.number}"
            self.pods[name] = PodFacts(name, self.template)

    @rule(data=st.data())
    @precondition(lambda self: self.active())
    def ready(self, data: st.DataObject) -> None:
        pod = data.draw(st.sampled_from(sorted(self.active(), key=lambda p: p.name)))
        self.pods[pod.name] = replace(pod, ready=True, available=True, phase="Running")

    @rule(data=st.data())
    @precondition(lambda self: self.active())
    def broken(self, data: st.DataObject) -> None:
        pod = data.draw(st.sampled_from(sorted(self.active(), key=lambda p: p.name)))
        self.pods[pod.name] = replace(pod, ready=False, available=False)

    @rule()
    def gone(self) -> None:
        self.pods = {name: pod for name, pod in self.pods.items() if not pod.deleting}

    @rule(number=st.integers(0, 3))
    def change_template(self, number: int) -> None:
        self.template = f"t{number}"

    @rule(replicas=st.integers(0, 6))
    def scale(self, replicas: int) -> None:
        self.spec["replicas"] = replicas

    @invariant()
    def converges(self) -> None:
        """From every state: when pods become ready and go as they should, it ends and is right."""
        if not hasattr(self, "pods"):
            return
        now = dict(self.pods)
        made = itertools.count()
        for _ in range(40):
            now = {
                name: replace(pod, ready=True, available=True, phase="Running")
                for name, pod in now.items()
            }
            found = plan(self.bounds, self.template, list(now.values()))
            if not found.create and not found.delete:
                break
            for name in found.delete:
                now.pop(name)
            for _ in range(found.create):
                name = f"new{next(made)}"
                now[name] = PodFacts(name, self.template)
        else:
            raise AssertionError(f"no end: {now}")
        kept = [pod for pod in now.values() if pod.active]
        # Pods that are on their way out may still be in the way of Recreate.
        if not (self.bounds.recreate and any(pod.deleting for pod in now.values())):
            assert len(kept) == self.bounds.replicas
            assert all(pod.template == self.template for pod in kept)


TestRollout = Rollout.TestCase
TestRollout.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.integers(0, 50), st.integers(0, 100), st.integers(0, 100))
def test_percentages_never_forbid_all_progress(replicas: int, surge: int, gone: int) -> None:
    rolling = {"maxSurge": f"{surge}%", "maxUnavailable": f"{gone}%"}
    bounds = Bounds.of({"replicas": replicas, "strategy": {"rollingUpdate": rolling}})
    assert replicas == 0 or bounds.surge + bounds.unavailable > 0
    assert bounds.unavailable <= replicas
