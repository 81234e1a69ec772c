"""What the soak's observer makes of watch events."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.tools.controlplane import Json
from scripts.tools.soak.facts import AgeMoved, Bound, Fact, ForeignChanged, LeaderChanged, Record, Taken
from scripts.tools.soak.observer import CLAIM, COST, FOREIGN, FOREIGN_KEY, IDLE, LATELY, Observer

MARK = {IDLE: "2026-01-01T00:00:00Z"}
NOON = 1_767_268_800.0


class Watched:
    """An observer, the time, and what it was told of."""

    def __init__(self) -> None:
        self.at = 100.0
        self.record = Record()
        self.observer = Observer(self.record, now=lambda: self.at, time=lambda: NOON + self.at)

    def facts(self, kind: type[Any]) -> list[Any]:
        return list(self.record.of(kind))

    def pod(self, kind: str, name: str, **given: Any) -> None:
        self.observer.pod(0.0, kind, pod(name, **given))


@pytest.fixture
def watched() -> Watched:
    return Watched()


def pod(
    name: str,
    *,
    node: str | None = "n",
    notes: dict[str, str] | None = None,
    ready: bool = True,
    going: bool = False,
    evicted: bool = False,
    scheduler: str = "warmnode",
    unschedulable: bool = False,
    pool: str = "soak",
) -> Json:
    conditions = [{"type": "Ready", "status": str(ready)}]
    if unschedulable:
        conditions.append({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"})
    if evicted:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"})
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {"warmnode.dev/pool": pool},
            "annotations": notes or {},
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
        },
        "spec": {"schedulerName": scheduler, **({"nodeName": node} if node else {})},
        "status": {"conditions": conditions},
    }


def claim_until(seconds: float) -> dict[str, str]:
    """A claim that ends so many seconds after the start."""
    minute, second = divmod(int(seconds), 60)
    return {CLAIM: f'{{"expires": "2026-01-01T12:{minute:02}:{second:02}Z"}}'}


def ledger(**data: str) -> Json:
    return {"metadata": {"name": "l"}, "data": data}


def test_an_eviction_is_seen_with_what_stood_on_the_worker(watched: Watched) -> None:
    """The version with the deletion timestamp says what the worker was at that moment; it is counted once."""
    for name in ("a", "b", "c"):
        watched.pod("ADDED", name, notes=MARK)
    watched.pod("MODIFIED", "a", notes=MARK, evicted=True)
    assert watched.facts(Taken) == []
    watched.pod("MODIFIED", "a", notes=MARK, evicted=True, going=True)
    watched.pod("DELETED", "a", notes=MARK, evicted=True, going=True)
    (taken,) = watched.facts(Taken)
    assert (taken.pod, taken.idle, taken.claimed, taken.left, taken.is_leaving) == ("a", True, False, 2, False)
    assert not taken.is_owned


def test_a_worker_without_a_mark_or_with_a_claim_is_seen_to_be_one(watched: Watched) -> None:
    """Deleted at once, it is the last version that counts."""
    watched.pod("ADDED", "a")
    watched.pod("DELETED", "a", evicted=True)
    watched.pod("ADDED", "b", notes=MARK)
    watched.pod("DELETED", "b", notes=MARK | claim_until(101), evicted=True)
    watched.pod("ADDED", "c", notes=MARK)
    watched.pod("DELETED", "c", notes=MARK | claim_until(99), evicted=True)
    assert [(each.idle, each.claimed) for each in watched.facts(Taken)] == [(False, False), (True, True), (True, False)]


def test_what_others_delete_is_not_taken_for_an_eviction_of_ours(watched: Watched) -> None:
    """A deletion, and one that was announced."""
    watched.pod("ADDED", "a", notes=MARK)
    watched.pod("DELETED", "a", notes=MARK)
    watched.observer.others_delete("b")
    watched.pod("ADDED", "b", notes=MARK)
    watched.pod("DELETED", "b", notes=MARK, evicted=True)
    assert watched.facts(Taken) == []


def test_who_took_work_a_moment_ago_counts_as_claimable_lately(watched: Watched) -> None:
    """And does not count a while after."""
    for name in ("a", "b", "c"):
        watched.pod("ADDED", name, notes=MARK)
    watched.pod("MODIFIED", "b")
    watched.pod("DELETED", "a", notes=MARK, evicted=True)
    watched.at += LATELY + 1
    watched.pod("DELETED", "c", notes=MARK, evicted=True)
    assert [(each.left, each.lately) for each in watched.facts(Taken)] == [(1, 2), (0, 0)]


def test_claimable_is_idle_ready_unclaimed_and_on_a_node_that_stays(watched: Watched) -> None:
    """A claim counts until five seconds after its end."""
    watched.pod("ADDED", "good", notes=MARK)
    watched.pod("ADDED", "busy")
    watched.pod("ADDED", "unready", notes=MARK, ready=False)
    watched.pod("ADDED", "claimed", notes=MARK | claim_until(96))
    watched.pod("ADDED", "cordoned", notes=MARK, node="leaving")
    watched.observer.node(0.0, "MODIFIED", {"metadata": {"name": "leaving"}, "spec": {"unschedulable": True}})
    assert watched.observer.claimable() == 1
    watched.at = 102.0
    assert watched.observer.claimable() == 2


def test_a_worker_of_the_deployment_is_none_of_the_floors(watched: Watched) -> None:
    """Its eviction is seen to be one that nobody may make."""
    watched.pod("ADDED", "a", notes=MARK)
    watched.pod("ADDED", "b", notes=MARK, pool="fleet")
    assert watched.observer.claimable() == 1
    watched.pod("DELETED", "b", notes=MARK, evicted=True, pool="fleet")
    (taken,) = watched.facts(Taken)
    assert taken.is_owned


def test_a_wait_begins_when_the_scheduler_is_free(watched: Watched) -> None:
    """Of two pods that came together the second one waits for the first, and that is not counted. Of a pod that was
    there before nobody knows.
    """
    watched.pod("ADDED", "a", node=None)
    watched.pod("ADDED", "b", node=None)
    watched.at += 0.3
    watched.pod("MODIFIED", "a")
    watched.at += 0.2
    watched.pod("MODIFIED", "b")
    watched.pod("ADDED", "c", node=None)
    watched.observer.missed()
    watched.pod("MODIFIED", "c")
    assert [round(each.waited, 3) for each in watched.facts(Bound)] == [0.3, 0.2]


def test_who_fits_nowhere_waits_for_a_node_and_is_not_compared(watched: Watched) -> None:
    watched.pod("ADDED", "a", node=None)
    watched.pod("MODIFIED", "a", node=None, unschedulable=True)
    watched.at = 140.0
    watched.pod("MODIFIED", "a")
    assert watched.facts(Bound) == []


def test_a_node_that_karpenter_takes_is_leaving(watched: Watched) -> None:
    """It does not count for the floor any more, before it is deleted too."""
    watched.pod("ADDED", "a", notes=MARK)
    taint = {"key": "karpenter.sh/disrupted", "effect": "NoSchedule"}
    watched.observer.node(0.0, "MODIFIED", {"metadata": {"name": "n"}, "spec": {"taints": [taint]}})
    assert watched.observer.claimable() == 0


def test_an_age_is_compared_with_the_earliest_that_there_ever_was(watched: Watched) -> None:
    """Over a ledger that was deleted, too."""
    watched.observer.ledger(0.0, "ADDED", ledger(u="50", v="60"))
    watched.observer.ledger(0.0, "DELETED", ledger())
    watched.observer.ledger(0.0, "ADDED", ledger(u="50", v="70"))
    watched.observer.ledger(0.0, "MODIFIED", ledger(u="40", v="70"))
    moved = [(each.uid, each.earliest, each.now) for each in watched.facts(AgeMoved)]
    assert moved == [("v", 60, 70), ("u", 50, 40), ("v", 60, 70)]


def test_a_key_of_somebody_else_stays_in_the_ledger(watched: Watched) -> None:
    """Unless whoever takes it says so."""
    watched.observer.ledger(0.0, "ADDED", ledger(**{FOREIGN_KEY: "x"}))
    watched.observer.others_take_ledger()
    watched.observer.ledger(0.0, "MODIFIED", ledger(**{FOREIGN_KEY: "x", "u": "1"}))  # what came before is heard after
    watched.observer.ledger(0.0, "DELETED", ledger())
    watched.observer.ledger(0.0, "ADDED", ledger(**{FOREIGN_KEY: "x"}))
    assert watched.facts(ForeignChanged) == []
    watched.observer.others_take_ledger()
    watched.observer.others_leave_ledger()
    watched.observer.ledger(0.0, "MODIFIED", ledger(u="1"))
    assert len(watched.facts(ForeignChanged)) == 1


def test_a_cost_of_somebody_else_stays_on_the_worker(watched: Watched) -> None:
    """Where his note is, the cost is his too."""
    watched.pod("ADDED", "a", notes={FOREIGN: "a", COST: "7"})
    watched.pod("MODIFIED", "a", notes={FOREIGN: "a", COST: "7"} | MARK)
    watched.pod("ADDED", "b")
    watched.pod("MODIFIED", "b", notes={COST: "-5"})
    assert watched.facts(ForeignChanged) == []
    watched.pod("MODIFIED", "a", notes={FOREIGN: "a", COST: "8"})
    assert len(watched.facts(ForeignChanged)) == 1


def test_a_change_of_leader_is_seen(watched: Watched) -> None:
    """A renewal is none."""
    for holder in ("a", "a", "b", ""):
        watched.observer.lease(0.0, "MODIFIED", {"spec": {"holderIdentity": holder}})
    assert [each.holder for each in watched.facts(LeaderChanged)] == ["a", "b", "nobody"]


def test_facts_are_what_the_record_takes(watched: Watched) -> None:
    """Every kind that the observer makes is a fact."""
    assert {Taken, Bound, AgeMoved, ForeignChanged, LeaderChanged} <= set(Fact.__args__)
