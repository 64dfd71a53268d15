"""kaos.runtime against kopf, kr8s, lightkube, kubernetes_asyncio and client-go, on this machine.

Run: `python benchmarks/runtime/compare.py [--runs N] [--only SCENARIO] [--peers A,B]`. Each run
starts a server of pre-serialised responses on one core and one peer on the other, so that only the
peer is measured; the peers take turns, so that a busy machine slows all of them. Prints medians,
and ratios beside the targets; exit code 1 when one is missed. Linux only.

The scenarios:

sync      fill a cache with objects of 2.5 KB that have managedFields; memory per object
storm     each object is updated five times; until each was reconciled in its last state
converge  the same, and each reconcile writes a status
latency   a user's edit while 10k objects are reconciled and written after a start
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import _environments
from _runner import HERE, FailedError, Peer, Scenario, run

SCENARIOS = (
    Scenario("sync 10k", "sync", 10_000, 0, "objects/s"),
    Scenario("sync 50k", "sync", 50_000, 0, "objects/s"),
    Scenario("storm", "storm", 10_000, 16, "updates/s"),
    Scenario("converge 1", "converge", 10_000, 1, "updates/s"),
    Scenario("converge 16", "converge", 10_000, 16, "updates/s"),
    Scenario("converge 64", "converge", 10_000, 64, "updates/s"),
    Scenario("latency", "latency", 10_000, 16, "ms, p99"),
)
OURS, TYPED, KOPF, KR8S = "kaos.runtime", "client-go typed", "kopf", "kr8s loop"
_ALL = frozenset(scenario.name for scenario in SCENARIOS)
_SLOW = _ALL - {"sync 50k"}
RATIOS = (
    ("sync 10k", KOPF, 60.0),
    ("sync 10k", TYPED, 2.5),
    ("sync 50k", TYPED, 2.5),
    ("storm", KOPF, 80.0),
    ("storm", TYPED, 3.0),
    ("converge 16", KR8S, 10.0),
    ("converge 16", TYPED, 0.5),
)
LIMITS = (("sync 10k", "kib", 6.0), ("sync 50k", "kib", 6.0), ("latency", "p99", 100.0))


def _python(name: str, *requirements: str) -> tuple[str, ...]:
    return _environments.python(name, *requirements), str(HERE / "peers" / f"{name}_peer.py")


def peers(only: list[str]) -> list[Peer]:
    """The comparators that can be had here, ours first."""
    makers: dict[str, tuple[Callable[[], tuple[str, ...]], frozenset[str], float]] = {
        OURS: (lambda: (sys.executable, str(HERE / "peers" / "ours.py")), _ALL, 1.0),
        KOPF: (
            lambda: _python("kopf", "kopf[uvloop]==1.45.2"),
            frozenset({"sync 10k", "storm", "latency"}),
            0.1,
        ),
        "kopf at info": (
            lambda: ("/usr/bin/env", "KOPF_INFO=1", *_python("kopf", "kopf[uvloop]==1.45.2")),
            frozenset({"sync 10k", "storm"}),
            0.1,
        ),
        KR8S: (lambda: _python("kr8s", "kr8s==0.20.15", "uvloop"), _SLOW, 0.1),
        "lightkube loop": (lambda: _python("lightkube", "lightkube==1.0.1", "uvloop"), _ALL, 1.0),
        "kubernetes_asyncio loop": (
            lambda: _python("kubernetes_asyncio", "kubernetes_asyncio==36.1.0", "uvloop"),
            _ALL,
            1.0,
        ),
        TYPED: (lambda: (_environments.go(),), _ALL, 1.0),
        "client-go dynamic": (lambda: (_environments.go(), "-dynamic"), _ALL, 1.0),
    }
    found = []
    for name, (command, scenarios, share) in makers.items():
        if only and not any(wanted in name for wanted in only):
            continue
        try:
            found.append(Peer(name, command(), scenarios, share))
        except _environments.UnavailableError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    return found


Figures = dict[tuple[str, str], dict[str, float]]


def measure(scenarios: list[Scenario], contenders: list[Peer], runs: int) -> Figures:
    """Medians by scenario and peer; of what there is, when it is interrupted."""
    server = _environments.python("server", "uvloop")
    samples: dict[tuple[str, str], list[dict[str, float]]] = {}
    try:
        for scenario in scenarios:
            for turn in range(runs):
                for peer in contenders:
                    if scenario.name not in peer.scenarios:
                        continue
                    print(
                        f"{scenario.name}, run {turn + 1}, {peer.name}: ", end="", file=sys.stderr
                    )
                    try:
                        found = run(scenario, peer, server)
                    except FailedError as error:
                        print(error, file=sys.stderr)
                        continue
                    print(f"{found['figure']:,.0f} {scenario.unit}", file=sys.stderr)
                    samples.setdefault((scenario.name, peer.name), []).append(found)
    except KeyboardInterrupt:
        print("interrupted: medians of fewer runs", file=sys.stderr)
    return {
        which: {key: statistics.median(sample[key] for sample in taken) for key in taken[0]}
        for which, taken in samples.items()
    }


def table(medians: Figures) -> None:
    """Print one row per scenario and peer."""
    units = {scenario.name: scenario.unit for scenario in SCENARIOS}
    columns = (
        ("cpu_us", "CPU µs each"),
        ("reconciles", "reconciles/s"),
        ("server", "server busy"),
        ("kib", "KiB/object"),
        ("p50", "p50 ms"),
    )
    print(f"\n| scenario | peer | figure | {' | '.join(title for _, title in columns)} |")
    print("|---|---|---:|" + "---:|" * len(columns))
    for (scenario, peer), values in medians.items():
        cells = [_cell(key, values.get(key)) for key, _ in columns]
        figure = f"{values['figure']:,.0f} {units[scenario]}"
        print(f"| {scenario} | {peer} | {figure} | {' | '.join(cells)} |")


def _cell(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key == "server":
        return f"{value:.0%}"
    return f"{value:,.1f}" if key in ("kib", "p50") or value < 10 else f"{value:,.0f}"


def judge(medians: Figures) -> bool:
    """Print the targets, and say whether all are met."""
    good = True
    print("\n| target | wanted | found | |\n|---|---:|---:|---|")
    for scenario, peer, wanted in RATIOS:
        ours, other = medians.get((scenario, OURS)), medians.get((scenario, peer))
        if ours and other:
            found = ours["figure"] / other["figure"]
            good &= found >= wanted
            verdict = "met" if found >= wanted else "missed"
            print(f"| {scenario} / {peer} | ≥ {wanted:g}x | {found:.2f}x | {verdict} |")
    for scenario, key, limit in LIMITS:
        if ours := medians.get((scenario, OURS)):
            good &= ours[key] <= limit
            verdict = "met" if ours[key] <= limit else "missed"
            unit = "KiB/object" if key == "kib" else "ms"
            print(f"| {scenario}, {unit} | ≤ {limit:g} | {ours[key]:.1f} | {verdict} |")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare kaos.runtime with its peers.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="scenarios that begin so")
    parser.add_argument("--peers", default="", help="peers whose names contain one of these")
    args = parser.parse_args()
    chosen = [s for s in SCENARIOS if not args.only or s.name.startswith(tuple(args.only))]
    medians = measure(chosen, peers([p for p in args.peers.split(",") if p]), args.runs)
    table(medians)
    return 0 if judge(medians) else 1


if __name__ == "__main__":
    sys.exit(main())
