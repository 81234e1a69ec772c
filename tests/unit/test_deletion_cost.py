"""Deletion cost: the values, and when one is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.model import Pod
from extender.policy.ages import order_key
from extender.policy.defaults import DisruptionCostUse, PoolCosts
from extender.policy.deletion_cost import (
    FREE_AT,
    LOW_PRIORITY,
    LOWEST_HELD,
    REPLICA_SET,
    CostState,
    CostWrite,
    KarpenterPart,
    Price,
    Stance,
    as_deletion_cost,
    busy_cost,
    claim_stances,
    cost_state,
    cost_write,
    disruption_cost,
    eviction_cost,
    idle_cost,
    is_untouched,
    stances,
)
from tests.builders import NOW, minutes_ago, node, times, uids, worker

KEY = order_key(node(), minutes_ago(60))
UNSEEN = order_key(node(), None)
SETTLE = timedelta(seconds=30)
OURS = str(idle_cost(KEY))


def value(pod: Pod, key: tuple[int, int, int, str] | None = KEY, *, enabled: bool = True) -> int | str | None:
    write = decide(pod, PoolCosts(enabled=enabled), key=key)
    return "nothing" if write is None else write.values[Price.DELETION]


def decide(
    pod: Pod,
    costs: PoolCosts,
    karpenter: KarpenterPart = KarpenterPart.READS,
    *,
    key: tuple[int, int, int, str] | None = KEY,
) -> CostWrite | None:
    return cost_write(pod, key, stances(costs, pod, karpenter), settle=SETTLE, now=NOW)


def prices(pod: Pod, costs: PoolCosts, karpenter: KarpenterPart = KarpenterPart.READS) -> dict[Price, int | None]:
    write = decide(pod, costs, karpenter)
    return {} if write is None else dict(write.values)


def with_cost(cost: str | None, mark: str | None, *, idle: bool = True) -> Pod:
    return worker(idle_since=minutes_ago(5) if idle else None, deletion_cost=cost, cost_mark=mark)


@given(times, times, uids, uids)
def test_idle_costs_follow_the_order(a: datetime, b: datetime, uid_a: str, uid_b: str) -> None:
    """The newer the node, the lower the cost; nodes of one minute differ by their slot."""
    since_2026 = datetime(2026, 1, 1, tzinfo=UTC)
    key_a, key_b = (order_key(node("n", uid=uid), max(at, since_2026)) for uid, at in ((uid_a, a), (uid_b, b)))
    assert (idle_cost(key_a) > idle_cost(key_b)) == (key_a[:3] < key_b[:3])
    assert (busy_cost(key_a) > busy_cost(key_b)) == (key_a[:3] < key_b[:3])


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)), uids)  # noqa: DTZ001
def test_costs_stay_far_from_free(seen: datetime, uid: str) -> None:
    """Within +-100,000,000: Karpenter 1.14 takes a value of -134,217,728 or less for a pod that is free to lose."""
    key = order_key(node("n", uid=uid), seen)
    assert -84_200_000 <= idle_cost(key) < 0 < busy_cost(key) <= 100_000_000


def test_busy_is_above_every_idle() -> None:
    """A ReplicaSet takes idle pods of the oldest node before a busy one of the newest."""
    oldest, newest = (
        order_key(node("a"), datetime(2020, 1, 1, tzinfo=UTC)),
        order_key(node("b"), datetime(2045, 12, 1, tzinfo=UTC)),
    )
    assert busy_cost(newest) > 0 > idle_cost(oldest)


def test_idle_is_written_after_settling() -> None:
    """Not before it has been idle for ``settle``, so that short jobs cost nothing."""
    assert value(worker(idle_since=NOW - timedelta(seconds=29))) == "nothing"
    assert value(worker(idle_since=NOW - SETTLE)) == idle_cost(KEY)


def test_never_idle_is_not_written() -> None:
    """0 ranks above every idle worker already."""
    assert value(worker()) == "nothing"


def test_busy_again_is_written_at_once() -> None:
    """A worker that has an idle value of ours and is busy gets the busy one."""
    assert value(with_cost(OURS, OURS, idle=False)) == busy_cost(KEY)


def test_written_once_per_state() -> None:
    """Two writes per cycle: what stands there already is not written again."""
    assert value(with_cost(OURS, OURS)) == "nothing"
    busy = str(busy_cost(KEY))
    assert value(with_cost(busy, busy, idle=False)) == "nothing"


def test_unseen_node_is_not_written() -> None:
    """Without an age there is no value."""
    assert value(worker(idle_since=minutes_ago(5)), UNSEEN) == "nothing"
    assert value(worker(idle_since=minutes_ago(5)), None) == "nothing"


@pytest.mark.parametrize(
    ("cost", "mark", "state"),
    [
        (None, None, CostState.NONE),
        ("5", None, CostState.FOREIGN),
        ("garbage", None, CostState.FOREIGN),
        (OURS, OURS, CostState.OURS),
        ("5", OURS, CostState.OVERWRITTEN),
        (None, OURS, CostState.OVERWRITTEN),
    ],
)
def test_cost_state_by_mark(cost: str | None, mark: str | None, state: CostState) -> None:
    """Ours is a value that equals the mark written with it."""
    assert cost_state(with_cost(cost, mark)) is state


@pytest.mark.parametrize(("cost", "mark"), [("5", None), ("5", OURS), (None, OURS)])
@pytest.mark.parametrize("enabled", [True, False])
def test_foreign_value_is_left_alone(cost: str | None, mark: str | None, enabled: bool) -> None:
    """We yield to whoever writes beside us."""
    assert value(with_cost(cost, mark), enabled=enabled) == "nothing"


def test_switched_off_removes_ours() -> None:
    """Off leaves nothing of ours behind."""
    assert value(with_cost(OURS, OURS), enabled=False) is None
    assert value(with_cost(None, None), enabled=False) == "nothing"


@given(st.sampled_from([None, "5", OURS]), st.sampled_from([None, OURS]), st.booleans(), st.booleans())
def test_untouched_pod_gets_no_deletion_cost(cost: str | None, mark: str | None, idle: bool, enabled: bool) -> None:
    """Whatever the settings; and a pod that is to be written is not untouched."""
    pod = with_cost(cost, mark, idle=idle)
    assert not is_untouched(pod) or decide(pod, PoolCosts(enabled=enabled)) is None


@pytest.mark.parametrize("touch", ["idle", "deletion_cost", "cost_mark", "disruption_cost", "disruption_mark"])
def test_any_price_mark_or_idle_mark_is_a_touch(touch: str) -> None:
    """Such a pod is looked at: a mark of ours without its value has been tampered with."""
    given: dict[str, Any] = {"idle_since": NOW} if touch == "idle" else {touch: "5"}
    assert is_untouched(worker())
    assert not is_untouched(worker(**given))


# -- the price that Karpenter alone reads -----------------------------------------------------------------------------

ALWAYS = PoolCosts(disruption_cost=DisruptionCostUse.ALWAYS)
NEVER = PoolCosts(disruption_cost=DisruptionCostUse.NEVER)
AUTO = PoolCosts()
PRICE = str(disruption_cost(KEY, 0, is_busy=False))
BUSY_PRICE = str(disruption_cost(KEY, 0, is_busy=True))
priorities = st.integers(min_value=-(2**31), max_value=1_000_000_000)
evened_out = st.integers(min_value=-230_000_000, max_value=500_000_000)
keys = st.builds(lambda at, uid: order_key(node("n", uid=uid), at), times, uids)


@given(keys, keys, evened_out, evened_out)
def test_a_busy_worker_outweighs_nine_idle_ones(
    busy: tuple[int, int, int, str], idle: tuple[int, int, int, str], busy_priority: int, idle_priority: int
) -> None:
    """Whatever the ages and the priorities: so a node of idle workers goes before one with a busy worker."""
    dear = eviction_cost(disruption_cost(busy, busy_priority, is_busy=True), busy_priority)
    cheap = eviction_cost(disruption_cost(idle, idle_priority, is_busy=False), idle_priority)
    assert dear > 9 * cheap > 0


@given(keys, priorities)
def test_a_busy_worker_is_never_free_above_the_bound(key: tuple[int, int, int, str], priority: int) -> None:
    """And none that is idle as long as its value can even the priority out: free values are not written."""
    if priority > LOWEST_HELD:
        assert eviction_cost(disruption_cost(key, priority, is_busy=True), priority) > 0
    if abs(priority) < 500_000_000:
        assert eviction_cost(disruption_cost(key, priority, is_busy=False), priority) > 0


@given(keys, priorities, st.booleans())
def test_a_disruption_cost_fits_in_32_bits(key: tuple[int, int, int, str], priority: int, is_busy: bool) -> None:
    """Karpenter takes what is beyond for unreadable, and counts such a pod as 1."""
    assert -(2**31) <= disruption_cost(key, priority, is_busy=is_busy) < 2**31


@given(keys, priorities, st.booleans())
def test_a_disruption_cost_says_what_a_deletion_cost_says(
    key: tuple[int, int, int, str], priority: int, is_busy: bool
) -> None:
    """Unless 32 bits cut it short: then it says nothing of the node."""
    said = as_deletion_cost(disruption_cost(key, priority, is_busy=is_busy), priority)
    assert said in (None, busy_cost(key) if is_busy else idle_cost(key))
    assert said is not None or abs(priority) > 200_000_000


def test_bounds_of_priorities_are_where_karpenter_begins_to_take_pods_for_nothing() -> None:
    """Without a price; idle with the lowest deletion cost; busy with the highest disruption cost."""
    assert eviction_cost(0, FREE_AT + 1) > 0 == eviction_cost(0, FREE_AT)
    assert eviction_cost(-84_200_000, LOW_PRIORITY) > 0 >= eviction_cost(-84_200_000, LOW_PRIORITY - 10_000)
    assert eviction_cost(2**31 - 1, LOWEST_HELD) > 0 > eviction_cost(2**31 - 1, LOWEST_HELD - 1_000_000)


@pytest.mark.parametrize(
    ("value", "priority", "cost"),
    [
        (0, None, 1), (0, 0, 1), (2**27, 0, 2), (-(2**28), 0, -1), (0, 2**25, 2),
        (2**31, 0, 10), (-(2**31), 0, -10),
    ],
)  # fmt: skip
def test_karpenter_weighs_value_and_priority_between_ten_below_and_above(
    value: int, priority: int | None, cost: float
) -> None:
    """sigs.k8s.io/karpenter pkg/utils/disruption EvictionCost."""
    assert eviction_cost(value, priority) == cost


def test_idle_price_is_the_deletion_cost() -> None:
    """At priority 0; otherwise it evens the priority out."""
    assert disruption_cost(KEY, None, is_busy=False) == disruption_cost(KEY, 0, is_busy=False) == idle_cost(KEY)
    cost = eviction_cost(disruption_cost(KEY, -1_000_000, is_busy=False), -1_000_000)
    assert cost == pytest.approx(eviction_cost(idle_cost(KEY), 0))


def test_a_cycle_is_one_patch_each_way() -> None:
    """Idle and settled, then busy: both prices in one write, and nothing more while nothing changes."""
    idle = worker(idle_since=minutes_ago(5))
    assert prices(idle, ALWAYS) == {Price.DELETION: idle_cost(KEY), Price.DISRUPTION: int(PRICE)}
    written: dict[str, Any] = dict.fromkeys(("deletion_cost", "cost_mark"), OURS)
    written |= dict.fromkeys(("disruption_cost", "disruption_mark"), PRICE)
    assert prices(worker(idle_since=minutes_ago(5), **written), ALWAYS) == {}
    busy = {Price.DELETION: busy_cost(KEY), Price.DISRUPTION: int(BUSY_PRICE)}
    assert prices(worker(**written), ALWAYS) == busy
    assert prices(worker(idle_since=NOW, **written), ALWAYS) == {}


def test_never_idle_is_dear_to_karpenter() -> None:
    """Without a price it would weigh 1 there, as an idle one of the oldest node: it gets the busy one, once."""
    assert prices(worker(), ALWAYS) == {Price.DISRUPTION: int(BUSY_PRICE)}
    assert prices(worker(disruption_cost=BUSY_PRICE, disruption_mark=BUSY_PRICE), ALWAYS) == {}


@pytest.mark.parametrize(("cost", "mark"), [("abc", None), ("5", PRICE), (None, PRICE)])
@pytest.mark.parametrize("costs", [ALWAYS, NEVER, PoolCosts(enabled=False)])
def test_foreign_disruption_cost_is_left_alone(cost: str | None, mark: str | None, costs: PoolCosts) -> None:
    """Also one that Karpenter cannot read."""
    pod = worker(idle_since=minutes_ago(5), disruption_cost=cost, disruption_mark=mark)
    assert Price.DISRUPTION not in prices(pod, costs)


@pytest.mark.parametrize(
    ("costs", "karpenter", "priority", "is_written"),
    [
        (AUTO, KarpenterPart.READS, 0, False),
        (AUTO, KarpenterPart.READS, None, False),
        (AUTO, KarpenterPart.READS, LOW_PRIORITY - 1, True),
        (AUTO, KarpenterPart.NONE, LOW_PRIORITY - 1, False),
        (AUTO, KarpenterPart.WRITES, 0, True),
        (ALWAYS, KarpenterPart.NONE, 0, True),
        (NEVER, KarpenterPart.WRITES, LOW_PRIORITY - 1, False),
        (PoolCosts(enabled=False, disruption_cost=DisruptionCostUse.ALWAYS), KarpenterPart.WRITES, 0, False),
    ],
)
def test_disruption_cost_is_written_where_it_is_needed(
    costs: PoolCosts, karpenter: KarpenterPart, priority: int | None, is_written: bool
) -> None:
    """auto: beside Karpenter's own writer, and where a priority would make the worker free. And ours goes where not."""
    pod = worker(priority=priority)
    assert (Price.DISRUPTION in prices(pod, costs, karpenter)) is is_written
    text = str(disruption_cost(KEY, priority, is_busy=True))
    ours = worker(priority=priority, disruption_cost=text, disruption_mark=text)
    assert prices(ours, costs, karpenter) == ({} if is_written else {Price.DISRUPTION: None})


def test_deletion_cost_of_a_replica_sets_pod_is_given_up_to_karpenter() -> None:
    """Ours is taken away, so that no old value says idle of a busy one; nobody else's pods are Karpenter's to price."""
    pod = worker(idle_since=minutes_ago(5), owner=REPLICA_SET, deletion_cost=OURS, cost_mark=OURS)
    assert prices(pod, AUTO, KarpenterPart.WRITES) == {Price.DELETION: None, Price.DISRUPTION: int(PRICE)}
    theirs = worker(idle_since=minutes_ago(5), owner=REPLICA_SET, deletion_cost="-3", cost_mark=OURS)
    assert prices(theirs, AUTO, KarpenterPart.WRITES) == {Price.DISRUPTION: int(PRICE)}
    bare = worker(idle_since=minutes_ago(5))
    both = {Price.DELETION: idle_cost(KEY), Price.DISRUPTION: int(PRICE)}
    assert prices(bare, AUTO, KarpenterPart.WRITES) == both


def test_a_claim_keeps_up_prices_of_ours_and_begins_none() -> None:
    """Whoever claims does not know what Karpenter does: the leader does."""
    written: dict[str, Any] = dict.fromkeys(("deletion_cost", "cost_mark"), OURS)
    written |= dict.fromkeys(("disruption_cost", "disruption_mark"), PRICE)

    def claimed(pod: Pod, costs: PoolCosts = NEVER) -> dict[Price, int | None]:
        write = cost_write(pod, KEY, claim_stances(costs), settle=SETTLE, now=NOW)
        return {} if write is None else dict(write.values)

    assert claimed(worker(**written)) == {Price.DELETION: busy_cost(KEY), Price.DISRUPTION: int(BUSY_PRICE)}
    assert claimed(worker(), ALWAYS) == {}
    assert set(claim_stances(PoolCosts(enabled=False)).values()) == {Stance.REMOVE}
