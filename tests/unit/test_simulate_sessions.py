"""Sessions on long-lived workers: who waits, which worker a session gets, and which idle ones go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.simulate.pool import PoolShape
from extender.simulate.rules import Order
from extender.simulate.session_rules import (
    SESSION_RULES,
    ClaimOrder,
    ReapOrder,
    SessionRule,
    WorkerShape,
    parse_session_rule,
)
from extender.simulate.sessions import simulate_sessions
from extender.simulate.tally import RunOutcome
from extender.simulate.workload import Job

SHAPE = PoolShape(slots=1, boot=timedelta(seconds=50), consolidate_after=timedelta(seconds=100), cache_blocks=9)
WORKERS = WorkerShape(start=timedelta(seconds=5), idle_timeout=timedelta(seconds=60), floor=1)
PATIENT = replace(WORKERS, idle_timeout=timedelta(hours=1))


def session(arrives: float, lasts: float = 100, key: str = "", blocks: Sequence[int] = ()) -> Job:
    return Job(arrives=arrives, lasts=lasts, key=key, blocks=blocks)


def outcome(sessions: list[Job], rule: str, *, workers: WorkerShape = WORKERS, shape: PoolShape = SHAPE) -> RunOutcome:
    return simulate_sessions(sessions, shape, workers, parse_session_rule(rule), Random(1))


def test_a_session_waits_for_its_worker_and_the_next_one_finds_it_idle() -> None:
    """A node boots and a worker starts; both sessions run on it, the second at once."""
    found = outcome([session(0), session(200)], "oldest+oldest+newest-node")
    assert (found.workers, found.launched_nodes, found.waited_jobs, found.waited_seconds) == (1, 1, 1, 55)
    assert found.mean_latency_seconds == pytest.approx((155 + 100) / 2)


def test_a_pool_may_begin_with_nodes() -> None:
    """Nobody waits for one to boot then."""
    found = outcome([session(0)], "oldest+oldest+newest-node", shape=replace(SHAPE, first_nodes=1))
    assert found.waited_seconds == 5


def test_a_session_that_waits_takes_whichever_worker_is_free_first() -> None:
    """Its own is on its way for another minute, and idle then."""
    found = outcome([session(0, 20), session(60)], "oldest+oldest+newest-node")
    assert (found.workers, found.waited_seconds) == (2, 55 + 15)


OLD_AND_NEW = [session(0, 100, "a", blocks=(1,)), session(10, 300, "b", blocks=(2,))]
"""One worker on each of two nodes: that on the older is idle from 155 s on, that on the newer from 365 s on."""


@pytest.mark.parametrize(("claims", "hit"), [("oldest", 1), ("last-used", 2), ("random", 1)])
def test_who_claims_gets_the_worker_that_the_rule_says(claims: str, hit: int) -> None:
    """By age the one on the oldest node; else the last used one, or any (which is the first here, by the seed)."""
    for block in (1, 2):
        found = outcome([*OLD_AND_NEW, session(400, blocks=(block,))], f"oldest+{claims}+newest-node", workers=PATIENT)
        assert found.hits == (block == hit)


def test_by_key_a_session_gets_a_worker_where_its_key_was_used() -> None:
    """On the newer node for one, on the older for the other; one whose key is new goes by age."""
    for key, block in (("a", 1), ("b", 2), ("new", 1)):
        last = session(400, 10, key, blocks=(block,))
        assert outcome([*OLD_AND_NEW, last], "oldest+key+newest-node", workers=PATIENT).hits == 1


def test_the_reaper_empties_the_newest_node_and_longest_idle_whichever_it_is() -> None:
    """Down to a floor of one: the older node, which was idle first, stays warm for a later session, or does not."""
    later = session(1000, blocks=(1,))
    assert outcome([*OLD_AND_NEW, later], "oldest+oldest+newest-node").hits == 1
    assert outcome([*OLD_AND_NEW, later], "oldest+oldest+longest-idle").hits == 0


def test_whole_node_leaves_a_node_alone_where_somebody_works() -> None:
    """Two nodes of two; a worker of the newer one is busy, three are idle, two must stay. Evicting the idle one beside
    it gains nothing, and costs the next three sessions a start."""
    before = [session(0), session(0), session(120, 3000), session(120)]
    sessions = [*before, session(1000), session(1000), session(1000)]
    shape, workers = replace(SHAPE, slots=2), replace(WORKERS, floor=2)
    busy = [session(0, 300), session(0, 300), *sessions[2:]]
    assert outcome(busy, "oldest+oldest+newest-node", shape=shape, workers=workers).workers == 5
    assert outcome(busy, "oldest+oldest+whole-node", shape=shape, workers=workers).workers == 4


def test_nodes_that_the_floor_keeps_are_paid_until_the_others_have_had_their_time() -> None:
    """One session, and a floor of one: the node stays, and is counted to the last pass."""
    kept = outcome([session(0)], "oldest+oldest+newest-node")
    gone = outcome([session(0)], "oldest+oldest+newest-node", workers=replace(WORKERS, floor=0))
    assert kept.node_hours * 3600 == pytest.approx(150 + 90)  # over at 155 s; the pass at 150 s is the last before that
    assert gone.node_hours * 3600 == pytest.approx(240 + 100)


sessions_at_random = st.lists(
    st.builds(
        session,
        st.floats(0, 5000),
        st.floats(1, 500),
        st.sampled_from(("", "a", "b")),
        st.lists(st.integers(0, 20), max_size=3, unique=True),
    ),
    min_size=1,
    max_size=40,
).map(lambda sessions: sorted(sessions, key=lambda each: each.arrives))
rules = st.builds(
    SessionRule,
    placement=st.sampled_from(Order),
    claims=st.sampled_from(ClaimOrder),
    reaping=st.sampled_from(ReapOrder),
)


@given(sessions_at_random, rules, st.integers(1, 3), st.integers(0, 3))
def test_whatever_the_rule_all_sessions_run_and_no_more_workers_start_than_there_are_sessions(
    sessions: list[Job], rule: SessionRule, slots: int, floor: int
) -> None:
    """And the same again is the same."""
    shape, workers = replace(SHAPE, slots=slots), replace(WORKERS, floor=floor)
    found = simulate_sessions(sessions, shape, workers, rule, Random(1))
    assert found.jobs == len(sessions)
    assert found.reads == sum(len(each.blocks) for each in sessions)
    assert 1 <= found.workers <= len(sessions)
    assert found.mean_latency_seconds >= sum(each.lasts for each in sessions) / len(sessions) - 1e-6
    assert found.node_hours * 3600 >= max(each.lasts for each in sessions)
    assert simulate_sessions(sessions, shape, workers, rule, Random(1)) == found


def test_the_rules_that_users_see_read_back() -> None:
    """As the JSON form and the flag write them."""
    assert [parse_session_rule(str(rule)) for rule in SESSION_RULES] == list(SESSION_RULES)
    assert len({rule.words for rule in SESSION_RULES}) == len(SESSION_RULES)


@pytest.mark.parametrize("text", ["oldest", "oldest+oldest", "a+b+c", "oldest+key+newest-node+", "+++"])
def test_a_rule_that_is_none_is_refused_with_what_to_write(text: str) -> None:
    """All words are named."""
    with pytest.raises(ValueError, match=r"PLACEMENT.CLAIMS.REAPING: spread, .*; random, .*; longest-idle, "):
        parse_session_rule(text)
