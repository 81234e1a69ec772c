"""What the claims' benchmark finds, and how it is shown. Measures nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scripts.tools.benchmarks.claim_waits import PER_SECOND, Waits, WaitSize
from scripts.tools.benchmarks.figures import ratios, shown, spread
from scripts.tools.benchmarks.report import Report, Table, Target


class Step(StrEnum):
    """What one call does."""

    PATCH = "one JSON merge patch of a pod at the API server"
    STRATEGIC = "one strategic merge patch, which a claim is"
    CLAIM = "claim"
    AGAIN = "the same claimant again"
    RENEW = "renew"
    RELEASE = "release"
    NOTHING = "claim in a pool without workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. ``crowds`` are (replicas, clients)."""

    nodes: int
    workers: int
    rounds: int
    calls: int
    seconds: float
    waits: WaitSize
    crowds: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """One round of many clients: claims with their releases a second, and raw patches by as many clients just before;
    the latency of a claim in milliseconds, writes that lost a race and CPU of warmnode for each.
    """

    per_second: float
    patches: float
    p50: float
    p99: float
    lost_races: float
    cpu_ms: float


def report(
    size: Size,
    steps: dict[Step, list[float]],
    crowds: dict[tuple[int, int], list[Crowd]],
    waits: list[Waits],
    conditions: tuple[str, ...],
) -> Report:
    alone = Table(
        title=f"One client, one call after the other, {size.workers:,} workers on {size.nodes:,} nodes",
        head=("call", "p50 ms", "over one JSON merge patch"),
        rows=tuple(
            (str(step), shown(values), "1" if step is Step.PATCH else shown(ratios(values, steps[Step.PATCH])))
            for step, values in steps.items()
        ),
    )
    many = Table(
        title="Clients that claim and release as fast as they can",
        head=(
            "replicas",
            "clients",
            "claims/s",
            "raw patches/s",
            "two writes a claim / raw patches",
            "p50 ms",
            "p99 ms",
            "lost races a claim",
            "CPU ms of warmnode a claim",
        ),
        rows=tuple(
            (
                str(replicas),
                str(clients),
                shown([each.per_second for each in found], 0),
                shown([each.patches for each in found], 0),
                shown(_writes_over_patches(found)),
                shown([each.p50 for each in found], 1),
                shown([each.p99 for each in found], 1),
                shown([each.lost_races for each in found]),
                shown([each.cpu_ms for each in found], 1),
            )
            for (replicas, clients), found in crowds.items()
        ),
        labels=2,
    )
    waiting = Table(
        title=f"Clients that wait, one replica, {PER_SECOND} workers a second become idle",
        head=("clients", "workers", "idle to handed out, p50 ms", "the longest, ms"),
        rows=(
            (
                f"{size.waits.clients:,}",
                f"{size.waits.workers:,}",
                shown([each.p50 for each in waits], 1),
                shown([each.longest for each in waits], 1),
            ),
        ),
        labels=2,
    )
    note = (
        "etcd, the API server, the replicas and the clients share the machine's cores, and the rates are what that "
        "allows. A claim is one patch and a release another; as many clients send patches of that size to the API "
        "server just before, as JSON merge patches. CPU is that of all replicas, for a claim and its release, with "
        "following their events. Over one strategic merge patch a claim's p50 is "
        f"{shown(ratios(steps[Step.CLAIM], steps[Step.STRATEGIC]))}."
    )
    wanted = {(1, 8): 0.75, (1, 32): 0.85, (3, 32): 0.75}
    shares = {crowd: _writes_over_patches(found) for crowd, found in crowds.items() if crowd in wanted}
    first = ratios(steps[Step.CLAIM], steps[Step.PATCH])
    lost = [each.lost_races for each in crowds.get((3, 32), ())]
    cpu = [each.cpu_ms for (replicas, _), found in crowds.items() if replicas == 1 for each in found]
    targets = (
        *(
            _target(
                f"claims and releases over raw patches, {replicas} replicas, {clients} clients",
                shares[replicas, clients],
                wanted[replicas, clients],
                at_least=True,
            )
            for replicas, clients in shares
        ),
        _target("claim p50, one client, over one JSON merge patch", first, 1.25),
        *([_target("lost races a claim, 3 replicas, 32 clients", lost, 0.1)] if lost else []),
        _target("ms from idle to handed out, the longest of clients that wait", [each.longest for each in waits], 100),
        _target("CPU ms of warmnode for a claim and its release, one replica", cpu, 2.5),
    )
    raw: dict[str, object] = {str(step): values for step, values in steps.items()}
    raw |= {
        f"{replicas} replicas, {clients} clients": [each.per_second for each in found]
        for (replicas, clients), found in crowds.items()
    }
    return Report(
        name="claims", conditions=conditions, tables=(alone, many, waiting), targets=targets, notes=(note,), raw=raw
    )


def _writes_over_patches(found: Sequence[Crowd]) -> list[float]:
    return ratios([2 * each.per_second for each in found], [each.patches for each in found])


def _target(what: str, values: Sequence[float], wanted: float, *, at_least: bool = False) -> Target:
    median = spread(values).median
    return Target(
        what=what,
        wanted=f"{'>=' if at_least else '<='} {wanted:g}",
        measured=shown(values),
        met=median >= wanted if at_least else median <= wanted,
    )
