"""Metrics under controller-runtime's names, so that its dashboards and alerts work unchanged.

Guarantees: one registry per manager (two managers in one process do not collide), and every series
of a controller exists with value 0 from the start, so that a rate() over it is right from the first
failure on.
"""

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from kaos.runtime.tally import Tallies, Timings

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1000.0)
RESULTS = ("success", "error", "requeue", "requeue_after")


class Metrics:
    """All metrics of one manager."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)  # process_*, as every Go controller has
        self.registry = registry
        self.reconcile_total = self._counter(
            "controller_runtime_reconcile", "Reconciles by result.", "controller", "result"
        )
        self.reconcile_errors = self._counter(
            "controller_runtime_reconcile_errors", "Reconciles that failed.", "controller"
        )
        self.terminal_errors = self._counter(
            "controller_runtime_terminal_reconcile_errors",
            "Reconciles that failed and are not tried again.",
            "controller",
        )
        self.reconcile_panics = self._counter(
            "controller_runtime_reconcile_panics",
            "Reconciles that raised an exception the library does not know.",
            "controller",
        )
        self.reconcile_timeouts = self._counter(
            "controller_runtime_reconcile_timeouts", "Reconciles that took too long.", "controller"
        )
        self.reconcile_time = self._histogram(
            "controller_runtime_reconcile_time_seconds", "Duration of a reconcile.", "controller"
        )
        self.max_concurrent = self._gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers.", "controller"
        )
        self.active_workers = self._gauge(
            "controller_runtime_active_workers", "Workers that reconcile now.", "controller"
        )
        self.queue_depth = self._gauge(
            "workqueue_depth", "Requests that wait.", "name", "controller", "priority"
        )
        self.queue_adds = self._counter("workqueue_adds", "Requests added.", "name", "controller")
        self.queue_duration = self._histogram(
            "workqueue_queue_duration_seconds", "Time from add to get.", "name", "controller"
        )
        self.work_duration = self._histogram(
            "workqueue_work_duration_seconds", "Time from get to done.", "name", "controller"
        )
        self.queue_retries = self._counter(
            "workqueue_retries", "Requests added again after a failure.", "name", "controller"
        )
        self.unfinished_work = self._gauge(
            "workqueue_unfinished_work_seconds",
            "Sum of the seconds of work in progress.",
            "name",
            "controller",
        )
        self.longest_running = self._gauge(
            "workqueue_longest_running_processor_seconds",
            "Seconds the longest work in progress has taken.",
            "name",
            "controller",
        )
        self.requests = self._counter(
            "rest_client_requests", "Requests to the API server.", "code", "method", "host"
        )
        self.request_duration = self._histogram(
            "rest_client_request_duration_seconds", "Time to an answer.", "verb", "host"
        )
        self.leader = self._gauge(
            "leader_election_master_status", "Whether this process leads.", "name"
        )
        self.watch_events = self._counter(
            "kaos_runtime_watch_events", "Events of the watches.", "resource"
        )
        self.lists = self._counter(
            "kaos_runtime_lists", "Complete lists, at start and after a gap.", "resource"
        )
        self.watch_failures = self._counter(
            "kaos_runtime_watch_failures", "Lists and watches that failed.", "resource"
        )
        self.cached_objects = self._gauge(
            "kaos_runtime_cached_objects", "Objects in the cache.", "resource"
        )

    def controller(self, name: str, workers: int) -> None:
        """Create a controller's series."""
        for result in RESULTS:
            self.reconcile_total.labels(name, result)
        for counter in (
            self.reconcile_errors,
            self.terminal_errors,
            self.reconcile_panics,
            self.reconcile_timeouts,
        ):
            counter.labels(name)
        self.reconcile_time.labels(name)
        self.max_concurrent.labels(name).set(workers)

    def _counter(self, name: str, text: str, *labels: str) -> Tallies:
        return Tallies(name, text, labels, self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Timings:
        return Timings(name, text, labels, _SECONDS, self.registry)
