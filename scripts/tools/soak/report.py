"""What a soak found, as text and as JSON. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from scripts.tools.controlplane import Json
from scripts.tools.soak.facts import Bound, Record, Sample, Span, Starved, Taken, Told
from scripts.tools.soak.invariants import PLAIN_SCHEDULER, WORKERS_SCHEDULER, Violation

SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was asked for, and what the crew counted."""

    seed: int
    seconds: float
    defect: str | None
    counts: Mapping[str, int]
    rules: Sequence[str]


def as_json(run: Run, record: Record, violations: Sequence[Violation]) -> Json:
    """Give all figures."""
    held = not violations
    spans = list(record.of(Span))
    waits = {
        scheduler: sorted(each.waited for each in record.of(Bound) if each.scheduler == scheduler)
        for scheduler in (WORKERS_SCHEDULER, PLAIN_SCHEDULER)
    }
    return {
        "seed": run.seed,
        "seconds": round(run.seconds, 1),
        "defect": run.defect,
        "held": held,
        "violations": [asdict(each) for each in violations],
        "faults": dict(sorted(Counter(each.fault for each in spans).items())),
        "counts": {
            **dict(sorted(run.counts.items())),
            "evicted": sum(1 for _ in record.of(Taken)),
            "claimsTold": sum(1 for _ in record.of(Told)),
        },
        "boundSeconds": {name: _quantiles(each) for name, each in waits.items() if each},
        "machineKeptWaitingSeconds": round(max((each.seconds for each in record.of(Starved)), default=0.0), 3),
        "most": _most(record),
        "rules": {rule: sum(each.rule == rule for each in violations) for rule in run.rules},
    }


def never_asked(record: Record) -> list[str]:
    """Name what has to happen for the rules to mean anything, and did not: a run without it proves nothing."""
    schedulers = Counter(each.scheduler for each in record.of(Bound))
    happened = {
        "eviction": any(record.of(Taken)),
        "claim": any(record.of(Told)),
        "worker bound by the scheduler that asks": schedulers[WORKERS_SCHEDULER] > 0,
        "pod bound by the stock scheduler": schedulers[PLAIN_SCHEDULER] > 0,
    }
    return [what for what, did in happened.items() if not did]


def as_text(found: Json) -> str:
    """Say the same in lines for people."""
    lines = [
        f"seed {found['seed']}, {found['seconds']:g} s" + (f", defect {found['defect']}" if found["defect"] else "")
    ]
    lines.append("faults: " + (", ".join(f"{name} {count}" for name, count in found["faults"].items()) or "none"))
    lines.append("counts: " + ", ".join(f"{name} {count}" for name, count in found["counts"].items()))
    for name, each in found["boundSeconds"].items():
        lines.append(f"{name} bound {each['pods']} pods: median {each['median']:.3f} s, most {each['most']:.3f} s")
    lines.append(f"this machine kept threads waiting for {found['machineKeptWaitingSeconds']:.2f} s at most")
    for name, each in found["most"].items():
        lines.append(f"{name}: {each['residentMib']:.0f} MiB, {each['files']} open files at most")
    for rule, count in found["rules"].items():
        lines.append(f"{'held  ' if not count else 'BROKEN'} {rule}" + (f": {count} times" if count else ""))
    lines += [f"  {each['at']:8.2f} s {each['rule']}: {each['what']}" for each in found["violations"][:SHOWN]]
    if len(found["violations"]) > SHOWN:
        lines.append(f"  and {len(found['violations']) - SHOWN} more")
    return "\n".join(lines)


def _quantiles(waits: Sequence[float]) -> Json:
    return {
        "pods": len(waits),
        "median": round(waits[len(waits) // 2], 4),
        "p99": round(waits[int(0.99 * len(waits))], 4),
        "most": round(waits[-1], 4),
    }


def _most(record: Record) -> Json:
    most: dict[str, dict[str, float]] = {}
    for each in record.of(Sample):
        held = most.setdefault(each.program, {"residentMib": 0.0, "files": 0})
        held["residentMib"] = max(held["residentMib"], round(each.resident_mib, 1))
        held["files"] = max(held["files"], each.files)
    return dict(sorted(most.items()))
