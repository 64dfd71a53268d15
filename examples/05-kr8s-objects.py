"""Deployments sleep outside of working hours, and are handled as kr8s objects.

    kubectl annotate deployment web example.com/hours=7-19

The runtime says what changed and when to look again; kr8s gives the objects their verbs (`scale`,
`logs`, `exec`, `port_forward` …). Both read the same kubeconfig. An object of the cache becomes a
kr8s object without a request, by `to_dict`.
"""

from datetime import UTC, datetime, timedelta

import kr8s
from kr8s.asyncio.objects import Deployment

from kaos.runtime import DEPLOYMENT, Controller, Manager, Request, Result, TerminalError, run

HOURS, REPLICAS = "example.com/hours", "example.com/replicas"


def awake(hours: str, now: datetime) -> bool:
    """Whether it is a time to work; "7-19" is from 7:00 to 18:59, UTC."""
    try:
        first, last = (int(hour) for hour in hours.split("-"))
    except ValueError:
        raise TerminalError(f"{HOURS}: expected two hours as in 7-19, got {hours!r}") from None
    return first <= now.hour < last


class Hours:
    def __init__(self, manager: Manager) -> None:
        self.cache = manager.cache

    async def reconcile(self, request: Request, /) -> Result | None:
        found = self.cache.get(DEPLOYMENT, request.name, request.namespace)
        if found is None or HOURS not in found.metadata.annotations:
            return None
        now = datetime.now(UTC)
        deployment = Deployment(found.to_dict(), api=await kr8s.asyncio.api())
        if not awake(found.metadata.annotations[HOURS], now):
            if deployment.replicas:
                await deployment.annotate({REPLICAS: str(deployment.replicas)})
                await deployment.scale(0)
        elif not deployment.replicas:
            await deployment.scale(int(found.metadata.annotations.get(REPLICAS, 1)))
        next_hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        return Result(requeue_after=(next_hour - now).total_seconds())


def hours(manager: Manager) -> Controller:
    return Controller("hours", Hours(manager), for_=DEPLOYMENT)


if __name__ == "__main__":
    run(hours)
