"""Claims as pure rules: what a pod says of its claim, who holds it, in which order workers are handed out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.kube.claim_store import format_claim
from extender.kube.objects import claim_from
from extender.model import FOREVER, UNREADABLE_CLAIM, Pod, PodClaim, SkipReason
from extender.policy.ages import order_key
from extender.policy.claims import (
    Claimant,
    ClaimReference,
    claim_end,
    claim_id,
    claimable_on,
    held_by,
    is_held_by,
    prolonged,
    reasons_on,
)
from extender.policy.defaults import PoolCosts, ReapRules
from extender.policy.deletion_cost import Price, busy_cost, claim_stances, cost_write, idle_cost
from extender.policy.idleness import (
    CLAIM_GRACE,
    asks_not_to_be_disturbed,
    idle_since,
    is_claimed,
    is_undisturbed,
    why_not_claimable,
    why_not_reapable,
)
from tests.builders import NOW, claim, minutes_ago, node, times, uids, worker

SECOND = timedelta(seconds=1)
HELD = claim(expires=NOW + SECOND)
OVER = claim(expires=NOW - CLAIM_GRACE)
CLAIMANT = Claimant(user="front", pool="pool", name="query-1")

milliseconds = times.map(lambda time: time.replace(microsecond=time.microsecond // 1000 * 1000))
claims = st.builds(
    PodClaim,
    id=st.text(max_size=40),
    pool=st.text(max_size=20),
    user=st.text(max_size=40),
    claimant=st.text(max_size=40),
    since=milliseconds,
    expires=milliseconds,
    renewals=st.integers(0, 1000),
    protects=st.booleans(),
)


# --- the annotation ----------------------------------------------------------------------------------------------


@given(claims)
def test_a_claim_is_read_as_it_was_written(drawn: PodClaim) -> None:
    """To the millisecond."""
    assert claim_from(format_claim(drawn)) == drawn


def test_no_annotation_is_no_claim() -> None:
    assert claim_from(None) is None


def record(**changes: Any) -> str:
    tree = {**msgspec.json.decode(format_claim(HELD)), **changes}
    return msgspec.json.encode({key: value for key, value in tree.items() if value is not None}).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        "null",
        "[]",
        "{}",
        '{"id": 1}',
        "[" * 100_000,
        "\ud800",
        record(expires="soon"),
        record(expires=None),
        record(since="2026-02-31T00:00:00Z"),
        record(user=None),
        record(renewals="many"),
        record(claimant="x" * 9000),
    ],
)
def test_nonsense_is_a_claim_of_nobody_for_ever(text: str) -> None:
    """Somebody may hold the worker: nobody else gets it, it is not evicted, and whoever looks sees why."""
    unreadable = claim_from(text)
    assert unreadable == UNREADABLE_CLAIM
    held = worker(idle_since=minutes_ago(600), claim=unreadable)
    assert why_not_claimable(held, None, NOW) is SkipReason.CLAIMED
    assert why_not_reapable(held, ReapRules(), NOW) is SkipReason.CLAIMED
    assert not is_held_by(held, CLAIMANT, NOW)
    assert not ClaimReference(user="", pool="", id="").means(HELD)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_read_without_a_fault(text: str) -> None:
    assert claim_from(text) is not None


def test_a_claim_of_a_newer_version_is_read() -> None:
    """Keys may be added."""
    assert claim_from(record(cacheKey="tenant-7")) == HELD


# --- claimed, and what follows -----------------------------------------------------------------------------------


def test_a_worker_is_claimed_until_five_seconds_after_the_claim_expired() -> None:
    """The clock of another replica, which renewed it, may be behind ours."""
    expires = NOW + timedelta(minutes=1)
    held = worker(idle_since=minutes_ago(1), claim=claim(expires=expires))
    for at, expected in ((NOW, True), (expires, True), (expires + CLAIM_GRACE - SECOND / 1000, True)):
        assert is_claimed(held, at) is expected
    assert not is_claimed(held, expires + CLAIM_GRACE)
    assert not is_claimed(worker(), NOW)


def test_a_claimed_worker_is_neither_handed_out_nor_evicted_nor_disturbed() -> None:
    held = worker(idle_since=minutes_ago(600), claim=HELD)
    assert why_not_claimable(held, None, NOW) is SkipReason.CLAIMED
    assert why_not_reapable(held, ReapRules(), NOW) is SkipReason.CLAIMED
    assert is_undisturbed(held, NOW)
    free = structs.replace(held, claim=OVER)
    assert why_not_claimable(free, None, NOW) is None
    assert why_not_claimable(free, SkipReason.LEAVING_NODE, NOW) is SkipReason.LEAVING_NODE
    assert not is_undisturbed(free, NOW)


def test_idle_counts_from_the_end_of_the_last_claim() -> None:
    """However long ago the worker said that it is idle: under the claim it was in use."""
    mark, end = minutes_ago(60), minutes_ago(1)
    assert idle_since(worker(idle_since=mark)) == mark
    assert idle_since(worker(idle_since=mark, claim_ended=end)) == end
    assert idle_since(worker(idle_since=end, claim_ended=mark)) == end
    expired = worker(idle_since=mark, claim=claim(expires=end))
    assert idle_since(expired) == end
    assert idle_since(worker(idle_since=None, claim_ended=end)) is None
    assert why_not_reapable(expired, ReapRules(), NOW) is SkipReason.IDLE_TOO_SHORT
    assert why_not_reapable(expired, ReapRules(idle_timeout=SECOND), NOW) is None


def test_do_not_disrupt_that_came_with_a_claim_ends_with_it() -> None:
    """A claimant that died must not keep a worker, and its node, for ever. Somebody else's annotation counts on."""
    ours = worker(idle_since=minutes_ago(60), do_not_disrupt_until=FOREVER, claim=structs.replace(HELD, protects=True))
    assert asks_not_to_be_disturbed(ours, NOW)
    assert not asks_not_to_be_disturbed(structs.replace(ours, claim=structs.replace(OVER, protects=True)), NOW)
    assert asks_not_to_be_disturbed(structs.replace(ours, claim=OVER), NOW)
    assert asks_not_to_be_disturbed(structs.replace(ours, claim=None), NOW)


def test_a_claimed_worker_costs_as_much_as_a_busy_one() -> None:
    """Where it has a value of ours; and after the claim the idle one comes back when it has settled."""
    key = order_key(node(), minutes_ago(60))
    text = str(idle_cost(key))
    idle = worker(idle_since=minutes_ago(5), deletion_cost=text, cost_mark=text)

    def value(pod: Pod) -> int | None:
        write = cost_write(pod, key, claim_stances(PoolCosts()), settle=timedelta(seconds=30), now=NOW)
        return None if write is None else write.values[Price.DELETION]

    assert value(structs.replace(idle, claim=HELD)) == busy_cost(key)
    assert value(structs.replace(idle, claim=HELD, deletion_cost=None, cost_mark=None)) is None
    busy = str(busy_cost(key))
    released = structs.replace(idle, deletion_cost=busy, cost_mark=busy, claim_ended=NOW - timedelta(seconds=29))
    assert value(released) is None
    assert value(structs.replace(released, claim_ended=NOW - timedelta(seconds=30))) == idle_cost(key)


# --- whose it is -------------------------------------------------------------------------------------------------


@given(st.tuples(*[st.text(max_size=30)] * 3), st.tuples(*[st.text(max_size=30)] * 3))
def test_claimants_have_the_same_label_only_if_they_are_the_same(a: tuple[str, ...], b: tuple[str, ...]) -> None:
    """User, pool and name, each for itself: ("ab", "c") is not ("a", "bc"). Any text makes a label value."""
    key_a, key_b = (Claimant(user=user, pool=pool, name=name).key for user, pool, name in (a, b))
    assert (key_a == key_b) is (a == b)
    assert len(key_a) == 40
    assert key_a.isalnum()


def test_a_worker_is_held_by_exactly_its_claimant() -> None:
    held = worker(idle_since=minutes_ago(1), claim=HELD)
    assert is_held_by(held, CLAIMANT, NOW)
    for other in (replace(CLAIMANT, user="x"), replace(CLAIMANT, pool="x"), replace(CLAIMANT, name="x")):
        assert not is_held_by(held, other, NOW)
    for lost in (
        structs.replace(held, claim=OVER),
        structs.replace(held, pool="other"),
        structs.replace(held, terminating=True),
        structs.replace(held, finished=True),
        structs.replace(held, claim=None),
    ):
        assert not is_held_by(lost, CLAIMANT, NOW)
    assert is_held_by(structs.replace(held, idle_since=None, ready_since=None), CLAIMANT, NOW), "at work"


def test_of_several_workers_the_one_that_is_held_longest_comes_first() -> None:
    """So each replica gives the same one, should a claimant hold two for once."""
    first = worker("a", claim=structs.replace(HELD, id="z", since=minutes_ago(2)))
    second = worker("b", claim=structs.replace(HELD, id="a", since=minutes_ago(1)))
    other = worker("c", claim=structs.replace(HELD, claimant="other", since=minutes_ago(9)))
    assert held_by([second, other, first], CLAIMANT, NOW) == [first, second]


def test_a_claim_id_leads_to_the_pod() -> None:
    """Any replica finds the claim with one read, whatever it knows."""
    pod = worker("worker-1.with.dots", namespace="ducks")
    reference = ClaimReference(user="front", pool="pool", id=claim_id(pod, "5f3a"))
    assert reference.place == ("ducks", "worker-1.with.dots")
    for nonsense in ("", "a", "a.b", "..", "a..c", ".b.c", "a.b.", "ns...x", "a.b/c.x", "a.B.x", "a.b%.x"):
        assert ClaimReference(user="u", pool="p", id=nonsense).place is None


@given(claims, st.integers(1, 10_000), times)
def test_renewing_never_shortens_a_claim_and_always_changes_it(drawn: PodClaim, seconds: int, now: datetime) -> None:
    """Two renewals in either order end at the same time."""
    ttl = timedelta(seconds=seconds)
    new = prolonged(drawn, ttl, now)
    assert new.expires == max(drawn.expires, now + ttl)
    assert new.renewals == drawn.renewals + 1
    assert prolonged(new, SECOND, now).expires == prolonged(prolonged(drawn, SECOND, now), ttl, now).expires
    assert claim_end(drawn, now) <= now


# --- the order ---------------------------------------------------------------------------------------------------

workers = st.lists(
    st.builds(
        lambda uid, idle, ended, held, pool, ready: worker(
            uid=uid,
            pool=pool,
            idle_since=idle,
            claim_ended=ended,
            claim=held,
            ready_since=ready,
        ),
        uids,
        st.sampled_from([None, minutes_ago(5), minutes_ago(10)]),
        st.sampled_from([None, minutes_ago(7), minutes_ago(1)]),
        st.sampled_from([None, HELD, OVER]),
        st.sampled_from(["pool", "pool", "other"]),
        st.sampled_from([None, minutes_ago(30)]),
    ),
    unique_by=lambda pod: pod.uid,
)


@given(workers, st.randoms(use_true_random=False))
def test_workers_of_a_node_come_idle_longest_first(drawn: list[Pod], random: Any) -> None:
    """Exactly the claimable ones of the pool, in an order that depends on them only."""
    order = claimable_on(drawn, "pool", None, NOW)
    assert {pod.uid for pod in order} == {
        pod.uid for pod in drawn if pod.pool == "pool" and why_not_claimable(pod, None, NOW) is None
    }
    assert order == sorted(order, key=lambda pod: (idle_since(pod), pod.uid))
    shuffled = list(drawn)
    random.shuffle(shuffled)
    assert claimable_on(shuffled, "pool", None, NOW) == order


@given(workers, st.sampled_from([None, SkipReason.LEAVING_NODE, SkipReason.NODE_NOT_HEARD_OF]))
def test_every_worker_is_handed_out_or_has_a_reason(drawn: list[Pod], barred: SkipReason | None) -> None:
    reasons = list(reasons_on(drawn, "pool", barred, NOW))
    claimable = claimable_on(drawn, "pool", barred, NOW)
    assert len(reasons) + len(claimable) == sum(pod.pool == "pool" for pod in drawn)
