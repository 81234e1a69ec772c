"""What a run leaves behind: one gzipped JSON file with what the API server said and when. Everything else is computed.

Owns the format. Times are seconds since the run's start, None for what had not happened when it ended.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.tools.experiment.matrix import Run

FORMAT = 1


@dataclass(slots=True, kw_only=True)
class NodeRecord:
    """A Node object: when the API server told of its creation, of Ready, of Karpenter's taint, of its end."""

    name: str
    added: float
    ready: float | None = None
    tainted: float | None = None
    deleted: float | None = None


@dataclass(slots=True, kw_only=True)
class PodRecord:
    """A worker pod. ``deleting`` is when its deletionTimestamp was seen; ``evicted`` says what Karpenter or the reaper
    evicted, by the pod's DisruptionTarget condition."""

    name: str
    added: float
    node: str | None = None
    bound: float | None = None
    ready: float | None = None
    deleting: float | None = None
    deleted: float | None = None
    evicted: str | None = None


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try at a task. ``done`` is False where its pod went away under it, or where the run ended."""

    task: int
    tenant: int
    arrived: float
    duration: float
    started: float
    node: str
    pod: str
    ended: float | None = None
    done: bool = False


@dataclass(slots=True, kw_only=True)
class Conditions:
    """How the machine was: ``samples`` are (time, busy share of all cores, load average, share of time in which
    something waited for a core). ``own`` are CPU seconds by program, ``late`` is by how much the
    harness acted too late: median, 95th percentile, worst."""

    cores: int = 0
    samples: list[tuple[float, float, float, float]] = field(default_factory=list)
    own: dict[str, float] = field(default_factory=dict)
    late_median: float = 0.0
    late_p95: float = 0.0
    late_worst: float = 0.0


@dataclass(slots=True, kw_only=True)
class Record:
    """One run."""

    run: Run
    began: str
    versions: dict[str, str] = field(default_factory=dict)
    nodes: list[NodeRecord] = field(default_factory=list)
    pods: list[PodRecord] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    waiting: int = 0
    """Tasks that arrived and had not started when the run ended."""
    refusals: int = 0
    """Claims that were refused because the worker was just being taken away."""
    reaper: dict[str, float] = field(default_factory=dict)
    """What the reaper's metrics say at the end: evictions by outcome, costs written, whether it was paused."""
    conditions: Conditions = field(default_factory=Conditions)


def write(record: Record, path: Path) -> None:
    """Write whole or not at all."""
    content = json.dumps(_rounded({"format": FORMAT, **asdict(record)}), separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_bytes(gzip.compress(content.encode(), 9, mtime=0))
    half.rename(path)


def read(path: Path) -> Record:
    """Read one. Raises ValueError where it is of another format."""
    content: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    if content.pop("format", None) != FORMAT:
        raise ValueError(f"{path}: not a record of format {FORMAT}")
    conditions = content.pop("conditions")
    conditions["samples"] = [tuple(each) for each in conditions["samples"]]
    return Record(
        run=Run(**content.pop("run")),
        nodes=[NodeRecord(**each) for each in content.pop("nodes")],
        pods=[PodRecord(**each) for each in content.pop("pods")],
        attempts=[Attempt(**each) for each in content.pop("attempts")],
        conditions=Conditions(**conditions),
        **content,
    )


def _rounded(value: Any) -> Any:
    """Milliseconds are as good as it gets, and as long as it needs to be."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
