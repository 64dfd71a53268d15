"""kaos.runtime against kopf, kr8s, lightkube, kubernetes_asyncio and client-go, on this machine.

Run: `python benchmarks/runtime/compare.py`, all of it, five runs, about 25 minutes; or by parts:
`--only SCENARIO`, `--peers A,B`, `--runs N`. What was measured is kept in a file (`--results`), so
that parts add up; `--report` prints the tables of what is in it and measures nothing.

Each run starts a server of pre-serialised responses on one core and one peer on the other, so that
only the peer is measured; the peers take turns, so that a busy machine slows all of them. A slow
peer gets fewer objects (the table says how many), so that it is not waited for. Prints medians, and
ratios beside the targets, by time and by the processor time of the peer, which a busy machine
changes less; exit code 1 when a target is missed by time. Linux only.

The scenarios:

sync      fill a cache with objects of 2.5 KB that have managedFields; memory per object
storm     each object is updated five times; until each was reconciled in its last state
converge  the same, and each reconcile writes a status; by 1, 16 and 64 workers
latency   a user's edit while 10k objects are reconciled and written after a start
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

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

# What part of a scenario's objects a peer is given; where it is not named it does not take part.
FULL = {scenario.name: 1.0 for scenario in SCENARIOS}
LOOP = {"sync 10k": 1.0, "sync 50k": 1.0, "storm": 0.2, "converge 1": 0.05, "converge 16": 0.05}
Command = tuple[str, ...]
Sample = dict[str, float]
Samples = dict[tuple[str, str], list[Sample]]


def _python(name: str, *requirements: str) -> Command:
    return _environments.python(name, *requirements), str(HERE / "peers" / f"{name}_peer.py")


def _kopf() -> Command:
    return _python("kopf", "kopf[uvloop]==1.45.2")


MAKERS: Mapping[str, tuple[Callable[[], Command], Mapping[str, float]]] = {
    OURS: (lambda: (sys.executable, str(HERE / "peers" / "ours.py")), FULL),
    KOPF: (_kopf, {"sync 10k": 1.0, "storm": 0.5, "latency": 0.1}),
    "kopf at info": (
        lambda: ("/usr/bin/env", "KOPF_INFO=1", *_kopf()),
        {"sync 10k": 1.0, "storm": 0.2},
    ),
    KR8S: (
        lambda: _python("kr8s", "kr8s==0.20.15", "uvloop"),
        {"sync 10k": 0.1, "storm": 0.05, "converge 1": 0.02, "converge 16": 0.02},
    ),
    "lightkube loop": (lambda: _python("lightkube", "lightkube==1.0.1", "uvloop"), LOOP),
    "kubernetes_asyncio loop": (
        lambda: _python("kubernetes_asyncio", "kubernetes_asyncio==36.1.0", "uvloop"),
        LOOP,
    ),
    TYPED: (lambda: (_environments.go(),), FULL | {"converge 1": 0.3, "converge 64": 0.5}),
    "client-go dynamic": (
        lambda: (_environments.go(), "-dynamic"),
        {"sync 10k": 1.0, "sync 50k": 1.0, "storm": 0.3, "converge 16": 0.3},
    ),
}


def contenders(only: list[str]) -> list[Peer]:
    """The peers that can be had here, ours first."""
    found = []
    for name, (command, shares) in MAKERS.items():
        if only and not any(wanted in name for wanted in only):
            continue
        try:
            found.append(Peer(name, command(), shares))
        except _environments.UnavailableError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    return found


def measure(
    scenarios: list[Scenario], peers: list[Peer], runs: int
) -> Iterator[tuple[str, str, Sample]]:
    """One sample after the other, told as they come."""
    server = _environments.python("server", "uvloop")
    for scenario in scenarios:
        for turn in range(runs):
            for peer in peers:
                if scenario.name not in peer.shares:
                    continue
                told = f"{scenario.name}, run {turn + 1}, {peer.name}: "
                print(told, end="", file=sys.stderr, flush=True)
                began = time.monotonic()
                try:
                    found = run(scenario, peer, server)
                except FailedError as error:
                    print(error, file=sys.stderr)
                    continue
                took = time.monotonic() - began
                figure = f"{found['figure']:,.0f} {scenario.unit}"
                print(f"{figure}, {took:.0f} s", file=sys.stderr)
                yield scenario.name, peer.name, found


def load(results: Path) -> Samples:
    """What was measured so far."""
    samples: Samples = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        scenario, peer, sample = json.loads(line)
        samples.setdefault((scenario, peer), []).append(sample)
    return samples


def report(samples: Samples) -> bool:
    """Print both tables, and say whether all targets are met."""
    medians = {
        which: {key: statistics.median(sample[key] for sample in taken) for key in taken[0]}
        for which, taken in samples.items()
    }
    print(
        "\n| scenario | peer | objects | runs | median | lowest to highest | CPU µs each | more |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---|")
    for scenario in SCENARIOS:
        for peer in MAKERS:
            if taken := samples.get((scenario.name, peer)):
                print(_row(scenario, peer, medians[scenario.name, peer], taken))
    return _judge(medians)


def _row(scenario: Scenario, peer: str, median: Sample, taken: list[Sample]) -> str:
    figures = sorted(sample["figure"] for sample in taken)
    more = {
        "KiB/object": median.get("kib") if median["objects"] >= 10_000 else None,
        "reconciles/s": median.get("reconciles"),
        "server busy %": 100 * median["server"] if "server" in median else None,
        "p50 ms": median.get("p50"),
    }
    cells = (
        scenario.name,
        peer,
        f"{median['objects']:,.0f}",
        str(len(taken)),
        f"{median['figure']:,.0f} {scenario.unit}",
        f"{figures[0]:,.0f} to {figures[-1]:,.0f}",
        f"{median['cpu_us']:,.0f}" if "cpu_us" in median else "",
        ", ".join(f"{_short(value)} {name}" for name, value in more.items() if value is not None),
    )
    return f"| {' | '.join(cells)} |"


def _short(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _judge(medians: Mapping[tuple[str, str], Sample]) -> bool:
    good = True
    print("\n| target | wanted | by time | by CPU | |\n|---|---:|---:|---:|---|")
    for scenario, peer, wanted in RATIOS:
        ours, other = medians.get((scenario, OURS)), medians.get((scenario, peer))
        if ours and other:
            found, cpu = ours["figure"] / other["figure"], other["cpu_us"] / ours["cpu_us"]
            good &= found >= wanted
            verdict = "met" if found >= wanted else "missed"
            target = f"{scenario} / {peer} | ≥ {wanted:g}x"
            print(f"| {target} | {found:.1f}x | {cpu:.1f}x | {verdict} |")
    for scenario, key, limit in LIMITS:
        if ours := medians.get((scenario, OURS)):
            good &= ours[key] <= limit
            verdict = "met" if ours[key] <= limit else "missed"
            unit = "KiB/object" if key == "kib" else "ms"
            print(f"| {scenario} | ≤ {limit:g} {unit} | {ours[key]:.1f} | | {verdict} |")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare kaos.runtime with its peers.")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="a scenario, or all of a kind")
    parser.add_argument("--peers", default="", help="peers whose names contain one of these")
    parser.add_argument("--results", type=Path, help="add to this file, and report all in it")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args()
    samples = load(args.results) if args.results else {}
    if not args.report:
        chosen = [s for s in SCENARIOS if not args.only or {s.name, s.kind} & {*args.only}]
        wanted = contenders([p for p in args.peers.split(",") if p])
        try:
            for scenario, peer, sample in measure(chosen, wanted, args.runs):
                samples.setdefault((scenario, peer), []).append(sample)
                if args.results:
                    with args.results.open("a") as file:
                        file.write(json.dumps([scenario, peer, sample]) + "\n")
        except KeyboardInterrupt:
            print("interrupted: medians of fewer runs", file=sys.stderr)
    return 0 if report(samples) else 1


if __name__ == "__main__":
    sys.exit(main())
