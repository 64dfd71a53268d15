"""Kubernetes events (surface; body follows)."""

from typing import Literal

from kaos.runtime.codec import Object


class EventRecorder:
    """Queues events; a task of the manager sends them."""

    def event(
        self,
        regarding: Object,
        *,
        type: Literal["Normal", "Warning"],  # noqa: A002 - the API's own name
        reason: str,
        note: str,
        action: str = "",
    ) -> None:
        """Record an event about an object. Never blocks and never fails."""
        raise NotImplementedError
