"""Leader election (surface; body follows)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaderElection:
    """Settings of the election: one Lease, held by at most one replica.

    Attributes:
        name: The Lease's name.
        namespace: Its namespace.
        identity: Who we are; default: host name and a random suffix.
        lease_duration: Seconds after which others may take an unrenewed lease.
        renew_deadline: Seconds after which we give up ourselves.
        retry_period: Seconds between attempts.
    """

    name: str
    namespace: str
    identity: str = ""
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
