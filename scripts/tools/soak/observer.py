"""The observer: watches of the API server, and nothing else, become facts.

Owns what is remembered of pods, nodes, the ledger and the Lease in order to say what happened to them. Judges nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from scripts.tools.controlplane import Json
from scripts.tools.controlplane.objects import is_ready
from scripts.tools.soak.facts import AgeMoved, Bound, ForeignChanged, LeaderChanged, Record, Taken

IDLE, CLAIM = "warmnode.dev/idle-since", "warmnode.dev/claim"
COST = "controller.kubernetes.io/pod-deletion-cost"
POOL_LABEL = "warmnode.dev/pool"
POOL, FLEET = "soak", "fleet"
"""Bare workers, which are reaped and of which the floor is asked, and those of a Deployment of the same name."""
FOREIGN = "example.com/note"
"""An annotation that somebody else put on a worker. Where it is, the deletion cost is his too."""
FOREIGN_KEY = "example.com.note"
"""A key of somebody else in the ledger."""
DISRUPTED = "karpenter.sh/disrupted"
"""The taint of a node that Karpenter takes."""
CLAIM_GRACE = 5.0
LATELY = 6.0
"""Who was claimable within so many seconds counts as claimable: a pass decides on what it heard."""

FIRST_BOUND = 12.0
"""Pods that are there before have to wait for their nodes."""


@dataclass(slots=True)
class _Worker:
    """What is known of one pod. ``seen``: since when it waits for its scheduler only. ``ceased``: when it stopped being
    claimable last.
    """

    name: str
    scheduler: str
    seen: float | None
    node: str | None = None
    is_ready: bool = False
    is_going: bool = False
    pool: str | None = None
    is_idle: bool = False
    claim_ends: float = 0.0
    note: str | None = None
    cost: str | None = None
    was_claimable: bool = False
    ceased: float | None = None


class Observer:
    """Takes watch events, from any thread. ``now`` is in seconds since the start, ``time`` in epoch seconds."""

    def __init__(self, record: Record, *, now: Callable[[], float], time: Callable[[], float]) -> None:
        self._record, self._now, self._time = record, now, time
        self._lock = threading.Lock()
        self._workers: dict[str, _Worker] = {}
        self._leaving: set[str] = set()
        self._last_bound: dict[str, float] = {}
        self._earliest: dict[str, int] = {}
        self._has_foreign_key = False
        self._others_took_ledger = False
        self._holder: str | None = None
        self._others_delete: set[str] = set()

    # What others do, told by whoever does it

    def others_delete(self, pod: str) -> None:
        """Know that a pod is about to be deleted by somebody else."""
        with self._lock:
            self._others_delete.add(pod)

    def others_take_ledger(self) -> None:
        """Know that the ledger is about to be deleted by somebody else. What was heard of it before may come after."""
        with self._lock:
            self._others_took_ledger = True

    def others_leave_ledger(self) -> None:
        """Know that nothing came of it."""
        with self._lock:
            self._others_took_ledger = False

    def missed(self) -> None:
        """Know that a watch was interrupted: what it said before is not compared with what it will say."""
        with self._lock:
            for each in self._workers.values():
                each.seen = None

    def forget_but(self, uids: set[str]) -> None:
        """Forget the pods that are gone, after a list that was complete."""
        with self._lock:
            self._workers = {uid: each for uid, each in self._workers.items() if uid in uids}

    # What is asked

    def claimable(self) -> int:
        """Count the workers that could be claimed now."""
        with self._lock:
            return sum(self._is_claimable(each) for each in self._workers.values())

    def census(self) -> dict[str, int]:
        """Count workers by what they do."""
        with self._lock:
            now = self._time()
            found = {"workers": 0, "idle": 0, "owned": 0, "claimed": 0, "going": 0, "pending": 0}
            for each in self._workers.values():
                found["workers"] += each.pool == POOL
                found["idle"] += each.pool == POOL and each.is_idle and not each.is_going
                found["owned"] += each.pool == FLEET
                found["claimed"] += each.claim_ends > now
                found["going"] += each.is_going
                found["pending"] += each.node is None
            return found

    # Watches

    def pod(self, _: float, kind: str, item: Json) -> None:
        """Take an event of a pod."""
        with self._lock:
            self._pod(kind, item)

    def node(self, _: float, kind: str, item: Json) -> None:
        """Take an event of a node."""
        with self._lock:
            name = item["metadata"]["name"]
            going = "deletionTimestamp" in item["metadata"] or item["spec"].get("unschedulable", False)
            going = going or any(each["key"] == DISRUPTED for each in item["spec"].get("taints") or ())
            (self._leaving.add if going or kind == "DELETED" else self._leaving.discard)(name)

    def lease(self, _: float, kind: str, item: Json) -> None:
        """Take an event of the reapers' Lease."""
        with self._lock:
            holder = None if kind == "DELETED" else item["spec"].get("holderIdentity") or None
            if holder != self._holder:
                self._holder = holder
                self._record.add(LeaderChanged(at=self._now(), holder=holder or "nobody"))

    def ledger(self, _: float, kind: str, item: Json) -> None:
        """Take an event of the ledger."""
        with self._lock:
            at = self._now()
            data = {} if kind == "DELETED" else item.get("data") or {}
            if self._has_foreign_key and data.get(FOREIGN_KEY) is None:
                if not self._others_took_ledger:
                    self._record.add(ForeignChanged(at=at, what=f"the key {FOREIGN_KEY} of the ledger is gone"))
                self._others_took_ledger = False
            self._has_foreign_key = FOREIGN_KEY in data
            recorded = {uid: int(value) for uid, value in data.items() if value.isdecimal()}
            for uid, value in recorded.items():
                earliest = self._earliest.setdefault(uid, value)
                if value != earliest:
                    self._record.add(AgeMoved(at=at, uid=uid, earliest=earliest, now=value))
                    self._earliest[uid] = min(value, earliest)

    # In the lock

    def _pod(self, kind: str, item: Json) -> None:
        metadata, at = item["metadata"], self._now()
        uid, notes = metadata["uid"], metadata.get("annotations") or {}
        worker = self._workers.get(uid)
        if worker is None:
            if kind == "DELETED":
                return
            node = item["spec"].get("nodeName")
            worker = self._workers[uid] = _Worker(
                name=metadata["name"],
                scheduler=item["spec"].get("schedulerName", ""),
                seen=at if kind == "ADDED" and node is None and at >= FIRST_BOUND else None,
                node=node,
                pool=(metadata.get("labels") or {}).get(POOL_LABEL),
                note=notes.get(FOREIGN),
                cost=notes.get(COST),
            )
        self._look_for_foreign(worker, notes, at)
        if not worker.is_going and ("deletionTimestamp" in metadata or kind == "DELETED"):
            self._goes(worker, item, at)
        if _fits_nowhere(item):
            worker.seen = None
        if worker.node is None and item["spec"].get("nodeName"):
            self._bound(worker, item["spec"]["nodeName"], at)
        worker.is_ready = is_ready(item)
        worker.is_idle = IDLE in notes
        worker.claim_ends = _claim_ends(notes.get(CLAIM))
        is_claimable = self._is_claimable(worker)
        if worker.was_claimable and not is_claimable:
            worker.ceased = at
        worker.was_claimable = is_claimable
        if kind == "DELETED":
            del self._workers[uid]

    def _goes(self, worker: _Worker, item: Json, at: float) -> None:
        worker.is_going = True
        if worker.name in self._others_delete or not _was_evicted(item):
            return
        notes = item["metadata"].get("annotations") or {}
        others = [each for each in self._workers.values() if each is not worker]
        left = sum(self._is_claimable(each) for each in others)
        lately = sum(
            not each.is_going and (self._is_claimable(each) or (each.ceased is not None and at - each.ceased <= LATELY))
            for each in others
        )
        self._record.add(
            Taken(
                at=at,
                pod=worker.name,
                idle=IDLE in notes,
                claimed=_claim_ends(notes.get(CLAIM)) > self._time(),
                left=left,
                lately=lately,
                is_leaving=worker.node in self._leaving,
                is_owned=worker.pool == FLEET,
            )
        )

    def _bound(self, worker: _Worker, node: str, at: float) -> None:
        worker.node = node
        if worker.seen is not None:
            waited = at - max(worker.seen, self._last_bound.get(worker.scheduler, 0.0))
            self._record.add(Bound(at=at, pod=worker.name, scheduler=worker.scheduler, waited=waited))
        self._last_bound[worker.scheduler] = at

    def _look_for_foreign(self, worker: _Worker, notes: dict[str, str], at: float) -> None:
        if worker.note is not None and (notes.get(FOREIGN), notes.get(COST)) != (worker.note, worker.cost):
            now = f"{notes.get(FOREIGN)} and {notes.get(COST)}"
            what = f"note and cost of {worker.name} were {worker.note} and {worker.cost}, and are {now}"
            self._record.add(ForeignChanged(at=at, what=what))
            worker.note = None  # told once

    def _is_claimable(self, worker: _Worker) -> bool:
        return (
            worker.pool == POOL
            and worker.is_idle
            and worker.is_ready
            and not worker.is_going
            and worker.claim_ends + CLAIM_GRACE < self._time()
            and worker.node not in self._leaving
        )


def _was_evicted(item: Json) -> bool:
    """True where the eviction API took the pod: it says so in a condition."""
    conditions = item.get("status", {}).get("conditions") or []
    return any(
        each["type"] == "DisruptionTarget" and each.get("reason") == "EvictionByEvictionAPI" for each in conditions
    )


def _fits_nowhere(item: Json) -> bool:
    """True for a pod of which the scheduler says so: it waits for a node, and not for a scheduler."""
    conditions = item.get("status", {}).get("conditions") or []
    return any(each["type"] == "PodScheduled" and each.get("reason") == "Unschedulable" for each in conditions)


def _claim_ends(text: str | None) -> float:
    """Read when a claim ends, in epoch seconds; 0 without one."""
    if text is None:
        return 0.0
    return datetime.fromisoformat(json.loads(text)["expires"]).astimezone(UTC).timestamp()
