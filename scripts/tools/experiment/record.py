"""What a run leaves behind: one compressed JSON file with what the API server said and when.

Owns the format; everything else is computed from it. Times are seconds since the run's start, None for what had not
happened when it ended.
"""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.tools.experiment.matrix import Run

FORMAT, FIRST_FORMAT = 2, 1
DECIMALS = 2
"""Of a time in seconds. It is what the tables need, and what the size of a file depends on."""


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
    """One try at a task. It takes ``work`` seconds after ``loading`` the model, which its node had (``hit``) or not.

    ``done`` is False where its pod went away under it, or where the run ended.
    """

    task: int
    model: int
    arrived: float
    work: float
    hit: bool
    loading: float
    started: float
    node: str
    pod: str
    ended: float | None = None
    done: bool = False

    @property
    def seconds(self) -> float:
        """How long it takes if nobody interrupts it."""
        return self.work + self.loading


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
    waiting: list[tuple[int, float]] = field(default_factory=list)
    """Tasks that waited for a start when the run ended: number and arrival."""
    refusals: int = 0
    """Claims that were refused because the worker was just being taken away."""
    reaper: dict[str, float] = field(default_factory=dict)
    """What the reaper's metrics say at the end: evictions by outcome, costs written, whether it was paused."""
    conditions: Conditions = field(default_factory=Conditions)


def write(record: Record, path: Path) -> None:
    """Write whole or not at all."""
    content = {"format": FORMAT, **asdict(record)}
    for name in _TABLES:
        content[name] = _columns(content[name])
    text = json.dumps(_rounded(content), separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_bytes(lzma.compress(text.encode(), preset=9))
    half.rename(path)


def read(path: Path) -> Record:
    """Read one. Raises ValueError where it is of another format.

    Those of the first experiment are rows; of their attempts nothing is read, because misses cost no time there.
    """
    raw = path.read_bytes()
    content: dict[str, Any] = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else lzma.decompress(raw))
    found = content.pop("format", None)
    if found == FIRST_FORMAT:
        content |= {name: _columns(content[name]) for name in _TABLES} | {"attempts": {}, "waiting": []}
    elif found != FORMAT:
        raise ValueError(f"{path}: not a record of format {FORMAT}")
    conditions = content.pop("conditions")
    conditions["samples"] = [tuple(each) for each in conditions["samples"]]
    content["waiting"] = [tuple(each) for each in content["waiting"]]
    content |= {name: [kind(**row) for row in _rows(content[name])] for name, kind in _TABLES.items()}
    return Record(run=Run(**content.pop("run")), conditions=Conditions(**conditions), **content)


_TABLES: dict[str, Any] = {"nodes": NodeRecord, "pods": PodRecord, "attempts": Attempt}


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Put what is alike beside each other: that is what compresses."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _rows(columns: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return value
