"""Reaping: which workers go, in which order, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from extender.model import FOREVER, Departure, Pod, ScaleIn, SkipReason
from extender.policy.ages import order_key
from extender.policy.defaults import ReapRules
from extender.policy.idleness import FUTURE_TOLERANCE, RulesNow, why_not_claimable, why_not_reapable
from extender.policy.reaping import Assessment, EvictionPlan, assess_node
from tests.builders import NOW, claim, minutes_ago, node, plan_evictions, worker

IDLE = minutes_ago(10)
RULES = ReapRules()
NOW_ASKED = RulesNow.of(RULES, NOW)


def assessed(
    name: str,
    *workers: Pod,
    seen_minutes_ago: float | None = 60,
    departure: Departure | None = None,
    others: int = 0,
    rules: ReapRules = RULES,
    stays: SkipReason | None = None,
    node_pool: str | None = None,
) -> Assessment:
    seen = None if seen_minutes_ago is None else minutes_ago(seen_minutes_ago)
    return assess_node(
        node=name,
        order_key=order_key(node(name), seen),
        barred=None if departure is None else SkipReason.LEAVING_NODE,
        workers=workers,
        others=others,
        asked=RulesNow.of(rules, NOW),
        stays=stays,
        node_pool=node_pool,
    )


def idle(name: str, *, for_minutes: float = 10, **arguments: object) -> Pod:
    return worker(name, idle_since=minutes_ago(for_minutes), **arguments)  # type: ignore[arg-type]


def names(plan: EvictionPlan) -> list[str]:
    return [victim.name for victim in plan.victims]


def plan(*assessments: Assessment, **limits: object) -> EvictionPlan:
    return plan_evictions(assessments, ReapRules(**limits))  # type: ignore[arg-type]


OLD, MID, NEW = 500, 50, 5


def test_among_equals_a_worker_goes_whose_key_is_rare_on_its_node() -> None:
    """On one node, idle for as long: no key, then the key used least there, then the UID. Idle longer still wins."""
    uses = {None: -inf, "rare": 1.0, "often": 7.0}
    pods = [idle(name, cache_key=key) for name, key in zip("abcd", ("often", "rare", None, "rare"), strict=True)]
    found = assessed("n", *pods, idle("z", for_minutes=11, cache_key="often"))

    def use(pod: Pod) -> float:
        return uses[pod.cache_key]

    assert names(plan_evictions([found], ReapRules(floor=0), key_use=use)) == ["z", "c", "b", "d", "a"]
    assert names(plan_evictions([found], ReapRules(floor=0))) == ["z", "a", "b", "c", "d"]


def test_newest_node_is_emptied_first() -> None:
    """Idle workers leave from the newest node to the oldest; the floor stays on the oldest."""
    decided = plan(
        assessed("old", idle("o"), seen_minutes_ago=OLD),
        assessed("new", idle("n"), seen_minutes_ago=NEW),
        assessed("mid", idle("m"), seen_minutes_ago=MID),
        floor=1,
    )
    assert names(decided) == ["n", "m"]
    assert decided.skipped == {worker("o").uid: SkipReason.FLOOR}


def test_node_not_seen_yet_counts_as_newest() -> None:
    """A node without any known age goes first."""
    decided = plan(
        assessed("new", idle("n"), seen_minutes_ago=NEW), assessed("unseen", idle("u"), seen_minutes_ago=None), floor=1
    )
    assert names(decided) == ["u"]


def test_leaving_node_goes_before_the_newest() -> None:
    """Idle workers on a leaving node hold a node that goes anyway: they go first, whatever the node's age."""
    decided = plan(
        assessed("old", idle("o"), seen_minutes_ago=OLD, departure=Departure.CORDONED),
        assessed("new", idle("n"), seen_minutes_ago=NEW),
        floor=0,
    )
    assert names(decided) == ["o", "n"]


def test_leaving_node_neither_uses_nor_holds_the_floor() -> None:
    """The floor counts claimable workers only."""
    decided = plan(
        assessed("old", idle("o"), seen_minutes_ago=OLD, departure=Departure.DISRUPTED),
        assessed("new", idle("n"), seen_minutes_ago=NEW),
        floor=1,
    )
    assert names(decided) == ["o"]
    assert decided.skipped == {worker("n").uid: SkipReason.FLOOR}


def test_unready_workers_stay_while_the_floor_is_not_reached() -> None:
    """After an outage all workers may be unready for a moment: they are not reaped because nobody is claimable."""
    unready = [idle(name, ready_since=None) for name in ("a", "b")]
    for whole_node in (False, True):
        decided = plan(assessed("new", *unready, seen_minutes_ago=NEW), floor=1, whole_node=whole_node)
        assert names(decided) == []
        assert set(decided.skipped.values()) == {SkipReason.FLOOR}
    decided = plan(assessed("new", *unready, seen_minutes_ago=NEW), assessed("old", idle("o")), floor=1)
    assert names(decided) == ["a", "b"]


def test_idle_longest_goes_first_on_one_node() -> None:
    """On one node the worker that has been idle longest goes first, then the smaller UID."""
    decided = plan(
        assessed("a", idle("x", for_minutes=10), idle("z", for_minutes=30), idle("b", for_minutes=10)), floor=0
    )
    assert names(decided) == ["z", "b", "x"]


def test_busy_worker_stays_on_the_newest_node() -> None:
    """A busy worker is never a victim, and its node's idle workers still are."""
    decided = plan(
        assessed("new", idle("n"), worker("busy"), seen_minutes_ago=NEW), assessed("old", idle("o")), floor=1
    )
    assert names(decided) == ["n"]


@pytest.mark.parametrize("floor", [1, 2])
@pytest.mark.parametrize("late", [{"for_minutes": 1}, {"created": minutes_ago(0.5)}])
def test_worker_that_goes_later_uses_the_floor_now(floor: int, late: dict[str, object]) -> None:
    """Idle on the newest node, for too short or too young: none on an older node goes in its place meanwhile."""
    young = assessed("new", idle("late", **late), seen_minutes_ago=NEW)  # type: ignore[arg-type]
    old = assessed("old", *(idle(f"old-{number}") for number in range(floor)), seen_minutes_ago=OLD)
    assert names(plan(young, old, floor=floor)) == []
    assert names(plan(young, old, floor=floor - 1)) == ["old-0"]


def test_worker_on_a_node_that_begins_uses_the_floor_now() -> None:
    """Karpenter initializes it in a moment, and may take it then: no older worker goes in its place until then."""
    begins = assessed("new", idle("early"), seen_minutes_ago=NEW, stays=SkipReason.NODE_NOT_INITIALIZED)
    assert names(plan(begins, assessed("old", idle("old"), seen_minutes_ago=OLD), floor=1)) == []


def test_floor_above_the_number_of_workers_keeps_all() -> None:
    """A floor that the pool does not reach is no error."""
    assert names(plan(assessed("a", idle("x"), idle("y")), floor=99)) == []


def test_max_per_pass_and_per_node_limit() -> None:
    """The limits of a pass, each with its reason."""
    nodes = [assessed(f"n{i}", *(idle(f"n{i}-{j}") for j in range(3)), seen_minutes_ago=10 * i + 10) for i in range(3)]
    decided = plan(*nodes, floor=0, max_per_pass=4, max_per_node=2)
    assert names(decided) == ["n0-0", "n0-1", "n1-0", "n1-1"]
    assert decided.skipped[worker("n0-2").uid] is SkipReason.MAX_PER_NODE
    assert decided.skipped[worker("n2-0").uid] is SkipReason.MAX_PER_PASS


def test_whole_node_takes_all_past_max_per_pass() -> None:
    """``wholeNode`` empties a node in one burst, so that Karpenter's consolidateAfter restarts once."""
    decided = plan(
        assessed("new", idle("a"), idle("b"), idle("c"), seen_minutes_ago=NEW),
        assessed("old", idle("d"), seen_minutes_ago=OLD),
        floor=0,
        max_per_pass=2,
        whole_node=True,
    )
    assert names(decided) == ["a", "b", "c"]
    assert decided.skipped == {worker("d").uid: SkipReason.MAX_PER_PASS}


def test_held_worker_stays_uses_the_floor_and_no_limit() -> None:
    """What a budget refuses stays; others are tried within the limits, and no older node is emptied in its place."""
    nodes = [
        assessed("new", idle("a"), idle("b"), seen_minutes_ago=NEW),
        assessed("mid", idle("c"), seen_minutes_ago=MID),
        assessed("old", idle("d"), seen_minutes_ago=OLD),
    ]
    held = {worker("a").uid: SkipReason.BUDGET_BLOCKED}
    decided = plan_evictions(nodes, ReapRules(floor=1, max_per_pass=1), held)
    assert names(decided) == ["b"]
    assert decided.skipped[worker("a").uid] is SkipReason.BUDGET_BLOCKED
    assert names(plan_evictions(nodes, ReapRules(floor=2, max_per_pass=0), held)) == ["b"]
    whole = plan_evictions(nodes, ReapRules(floor=0, whole_node=True), held)
    assert names(whole) == ["c", "d"]
    assert whole.skipped[worker("b").uid] is SkipReason.NODE_KEEPS_OTHERS


@pytest.mark.parametrize("holds", ["others", "busy", "tooYoung"])
def test_whole_node_leaves_a_node_that_would_keep_something(holds: str) -> None:
    """Evicting from a node that stays is pure loss with ``wholeNode``."""
    extra = {"others": [], "busy": [worker("busy")], "tooYoung": [idle("fresh", for_minutes=1)]}[holds]
    decided = plan(
        assessed("new", idle("a"), *extra, others=1 if holds == "others" else 0, seen_minutes_ago=NEW),
        assessed("old", idle("d"), seen_minutes_ago=OLD),
        floor=0,
        whole_node=True,
    )
    assert names(decided) == ["d"]
    assert decided.skipped[worker("a").uid] is SkipReason.NODE_KEEPS_OTHERS


def test_whole_node_passes_over_what_would_break_the_floor() -> None:
    """A node whose workers are more than the pool can spare stays; a smaller, older one may go."""
    decided = plan(
        assessed("new", idle("a"), idle("b"), seen_minutes_ago=NEW),
        assessed("old", idle("c"), seen_minutes_ago=OLD),
        floor=2,
        whole_node=True,
    )
    assert names(decided) == ["c"]
    assert decided.skipped[worker("a").uid] is SkipReason.FLOOR


def test_whole_node_is_emptied_where_its_unready_workers_do_not_count_for_the_floor() -> None:
    """One claimable worker may be spared, and the node has no more of them."""
    mixed = [assessed("new", idle("a"), idle("unready", ready_since=None), seen_minutes_ago=NEW)]
    assert names(plan(*mixed, assessed("old", idle("b")), floor=1, whole_node=True)) == ["a", "unready"]


def test_what_is_seen_on_a_node_is_counted() -> None:
    """All claimed workers, idle and busy ones; a mark a little ahead of our clock is one, further ahead it is none."""
    held = claim(expires=NOW + timedelta(minutes=1))
    ahead = [worker(f"w{more}", idle_since=NOW + FUTURE_TOLERANCE + timedelta(seconds=more)) for more in (0, 1)]
    claimed = [idle("c1", claim=held), idle("c2", claim=held), worker("c3", claim=held)]
    found = assessed("n", *claimed, *ahead, idle("i1"))
    assert (found.node, found.claimed, found.idle, found.busy) == ("n", 3, 2, 1)


def test_whole_node_ignores_terminating_pods() -> None:
    """A worker that is going already does not hold its node."""
    decided = plan(assessed("new", idle("a"), idle("gone", terminating=True), others=0), floor=0, whole_node=True)
    assert names(decided) == ["a"]


@pytest.mark.parametrize(
    ("candidate", "rules", "reason"),
    [
        (worker(), RULES, SkipReason.BUSY),
        (idle("w", terminating=True), RULES, SkipReason.TERMINATING),
        (idle("w", for_minutes=5), RULES, SkipReason.IDLE_TOO_SHORT),
        (idle("w", for_minutes=5.01), RULES, None),
        (idle("w", do_not_disrupt_until=FOREVER), RULES, SkipReason.DO_NOT_DISRUPT),
        (idle("w", do_not_disrupt_until=NOW), RULES, None),
        (idle("w", owner="DaemonSet.apps"), ReapRules(scale_in=ScaleIn.EVICT), SkipReason.DAEMON_SET),
        (idle("w", owner="Node"), ReapRules(scale_in=ScaleIn.EVICT), SkipReason.STATIC_POD),
        (idle("w", static=True), ReapRules(scale_in=ScaleIn.EVICT), SkipReason.STATIC_POD),
        (idle("w", namespace="kube-system"), RULES, SkipReason.SYSTEM_NAMESPACE),
        (idle("w", created=minutes_ago(0.5)), RULES, SkipReason.TOO_YOUNG),
        (idle("w"), ReapRules(enabled=False), SkipReason.DISABLED),
        (idle("w"), ReapRules(scale_in=ScaleIn.ANNOTATE), SkipReason.ANNOTATE_ONLY),
        (idle("w", owner="ReplicaSet.apps"), RULES, SkipReason.OWNER_RECREATES),
        (idle("w", owner="Job.batch"), RULES, SkipReason.OWNER_RECREATES),
        (idle("w", owner="StatefulSet.apps"), RULES, SkipReason.OWNER_RECREATES),
        (idle("w", owner="Fleet.example.com"), RULES, SkipReason.OWNER_RECREATES),
        (idle("w", owner="ReplicaSet.apps"), ReapRules(scale_in=ScaleIn.EVICT), None),
        (idle("w", owner="Fleet.example.com"), ReapRules(evict_owners=("Fleet.example.com",)), None),
    ],
)
def test_reapable_conditions(candidate: Pod, rules: ReapRules, reason: SkipReason | None) -> None:
    """Every condition of `why_not_reapable`, met and not met."""
    assert why_not_reapable(candidate, rules, NOW) is reason


@pytest.mark.parametrize(
    ("candidate", "barred", "reason"),
    [
        (idle("w", for_minutes=0), None, None),
        (worker(), None, SkipReason.BUSY),
        (idle("w", ready_since=None), None, SkipReason.NOT_READY),
        (idle("w", terminating=True), None, SkipReason.TERMINATING),
        (idle("w", old_machine=True), None, SkipReason.OLD_MACHINE),
        (idle("w"), SkipReason.LEAVING_NODE, SkipReason.LEAVING_NODE),
        (idle("w"), SkipReason.NODE_NOT_HEARD_OF, SkipReason.NODE_NOT_HEARD_OF),
    ],
)
def test_claimable_conditions(candidate: Pod, barred: SkipReason | None, reason: SkipReason | None) -> None:
    """Every condition of `why_not_claimable`, met and not met."""
    assert why_not_claimable(candidate, barred, NOW) is reason


@given(
    st.builds(
        worker,
        idle_since=st.sampled_from([None, IDLE, NOW + FUTURE_TOLERANCE, NOW + FUTURE_TOLERANCE * 1.1]),
        ready_since=st.sampled_from([None, minutes_ago(30)]),
        terminating=st.booleans(),
        old_machine=st.booleans(),
        claim=st.sampled_from([None, claim(expires=minutes_ago(1)), claim(expires=NOW + timedelta(minutes=1))]),
    ),
    st.sampled_from([None, SkipReason.LEAVING_NODE, SkipReason.NODE_NOT_HEARD_OF]),
)
def test_the_floor_counts_who_can_be_claimed(candidate: Pod, barred: SkipReason | None) -> None:
    """Of a node's workers exactly those."""
    found = assess_node(
        node="n", order_key=order_key(node("n"), None), barred=barred, workers=[candidate], others=0, asked=NOW_ASKED
    )
    assert found.claimable == (why_not_claimable(candidate, barred, NOW) is None)


pods = st.builds(
    worker,
    st.integers(0, 10_000).map(lambda number: f"w{number}"),
    idle_since=st.sampled_from([None, IDLE, minutes_ago(60), minutes_ago(1), NOW + timedelta(minutes=5)]),
    ready_since=st.sampled_from([None, minutes_ago(30)]),
    terminating=st.booleans(),
    owner=st.sampled_from([None, None, "ReplicaSet.apps"]),
)
nodes = st.lists(
    st.tuples(
        st.lists(pods, max_size=4, unique_by=lambda pod: pod.uid),
        st.one_of(st.none(), st.integers(1, 500)),
        st.sampled_from([None, None, Departure.CORDONED]),
        st.integers(0, 1),
    ),
    max_size=5,
)
limits = st.builds(
    ReapRules,
    floor=st.integers(0, 6),
    max_per_pass=st.integers(0, 4),
    max_per_node=st.integers(0, 2),
    whole_node=st.booleans(),
)


def cluster(drawn: list[tuple[list[Pod], int | None, Departure | None, int]]) -> list[Assessment]:
    taken: set[str] = set()
    found = []
    for number, (candidates, seen, departure, others) in enumerate(drawn):
        unique = [pod for pod in candidates if pod.uid not in taken]
        taken.update(pod.uid for pod in unique)
        found.append(assessed(f"node-{number}", *unique, seen_minutes_ago=seen, departure=departure, others=others))
    return found


def uids_of(pods_: Iterable[Pod]) -> set[str]:
    return {pod.uid for pod in pods_}


def uncounted(found: Iterable[Assessment]) -> set[str]:
    return {uid for each in found for uid in each.uncounted}


@given(nodes, limits)
def test_plan_never_goes_below_the_floor(
    drawn: list[tuple[list[Pod], int | None, Departure | None, int]], limit: ReapRules
) -> None:
    """At least ``floor`` claimable workers stay, or all of them where there are fewer."""
    found = cluster(drawn)
    claimable = sum(each.claimable for each in found)
    gone = uids_of(plan_evictions(found, limit).victims) - uncounted(found)
    assert claimable - len(gone) >= min(limit.floor, claimable)


@given(nodes, limits)
def test_plan_explains_every_idle_worker(
    drawn: list[tuple[list[Pod], int | None, Departure | None, int]], limit: ReapRules
) -> None:
    """Each reapable worker is a victim once, or has a reason, and is counted for it once; nobody else is a victim."""
    found = cluster(drawn)
    decided = plan_evictions(found, limit)
    reapable = {worker.uid for each in found for worker in each.reapable}
    victims = [victim.uid for victim in decided.victims]
    assert len(victims) == len(set(victims))
    assert set(victims) <= reapable
    assert reapable - set(victims) <= decided.skipped.keys()
    assert not set(victims) & decided.skipped.keys()
    assert decided.skipped.count() == Counter(decided.skipped.values())


@given(nodes, limits, st.randoms(use_true_random=False))
def test_plan_ignores_input_order(
    drawn: list[tuple[list[Pod], int | None, Departure | None, int]], limit: ReapRules, random: Random
) -> None:
    """The same nodes, and the same workers on each, in another order give the same plan."""
    found = cluster(drawn)
    mixed = [structs.replace(each, reapable=tuple(random.sample(each.reapable, len(each.reapable)))) for each in found]
    random.shuffle(mixed)
    assert plan_evictions(found, limit) == plan_evictions(mixed, limit)


@given(nodes, limits)
def test_plan_keeps_the_limits_of_a_pass(
    drawn: list[tuple[list[Pod], int | None, Departure | None, int]], limit: ReapRules
) -> None:
    """At most ``max_per_pass`` in all and ``max_per_node`` on each node, 0: any number.

    With ``whole_node`` a node is emptied or left alone: the last one past ``max_per_pass``, none once it is reached.
    Nobody stays for a limit that was not reached.
    """
    found = cluster(drawn)
    decided = plan_evictions(found, limit)
    most, most_on_one = limit.max_per_pass or inf, limit.max_per_node or inf
    gone = [victim.uid for victim in decided.victims]
    for each in found:
        here = [uid for uid in gone if uid in uids_of(each.reapable)]
        stay = {decided.skipped.get(worker.uid) for worker in each.reapable}
        if limit.whole_node and not each.is_leaving:
            assert len(here) in (0, len(each.reapable))
            assert not here or gone.index(here[0]) < most
        else:
            assert len(here) <= most_on_one
            assert not here or gone.index(here[-1]) < most
        if SkipReason.MAX_PER_NODE in stay:
            assert len(here) == most_on_one
        if SkipReason.MAX_PER_PASS in stay:
            assert len(gone) >= most


def test_whole_nodes_stop_when_the_limit_of_a_pass_is_reached() -> None:
    """Two nodes of two, and two may go: the second node is left for the next pass."""
    nodes = [
        assessed(name, idle(f"{name}1"), idle(f"{name}2"), seen_minutes_ago=at)
        for name, at in (("old", OLD), ("new", NEW))
    ]
    decided = plan(*nodes, floor=0, max_per_pass=2, whole_node=True)
    assert names(decided) == ["new1", "new2"]
    assert set(decided.skipped.values()) == {SkipReason.MAX_PER_PASS}


def test_more_that_wait_than_may_go_use_up_what_may_go_and_no_more() -> None:
    """Two on the newest node only have to be idle for longer, and one may go: the floor is reached and not undershot,
    so a worker that does not count for it goes."""
    decided = plan(
        assessed("new", idle("a", for_minutes=1), idle("b", for_minutes=1), seen_minutes_ago=NEW),
        assessed("old", idle("unready", ready_since=None), seen_minutes_ago=OLD),
        floor=1,
    )
    assert names(decided) == ["unready"]


@given(nodes, st.integers(0, 6))
def test_plan_without_limits_takes_the_newest(
    drawn: list[tuple[list[Pod], int | None, Departure | None, int]], floor: int
) -> None:
    """No worker stays for the floor on a newer node than one from which a claimable worker went."""
    found = [each for each in cluster(drawn) if not each.is_leaving]
    decided = plan_evictions(found, ReapRules(floor=floor, max_per_pass=0))
    gone = uids_of(decided.victims)
    emptied = [each.order_key for each in found if gone & (uids_of(each.reapable) - each.uncounted)]
    kept = [
        each.order_key
        for each in found
        if any(decided.skipped.get(worker.uid) is SkipReason.FLOOR for worker in each.reapable)
    ]
    assert not emptied or not kept or max(kept) <= min(emptied)


# -- Karpenter's budgets, and nodes that stay -------------------------------------------------------------------------


def test_workers_on_a_node_that_stays_are_kept_and_count_for_the_floor() -> None:
    """Nothing is gained by evicting them; the floor is what is left there, so the dynamic node can be emptied."""
    decided = plan(
        assessed("old", idle("o"), seen_minutes_ago=OLD),
        assessed("static", idle("s"), seen_minutes_ago=NEW, stays=SkipReason.STATIC_NODE_POOL),
        floor=1,
    )
    assert names(decided) == ["o"]
    assert decided.skipped == {worker("s").uid: SkipReason.STATIC_NODE_POOL}


def test_leaving_node_is_emptied_although_it_would_have_stayed() -> None:
    """A static node that is being deleted goes, and its idle workers hold it."""
    leaving = assessed("a", idle("w"), departure=Departure.NODE_DELETING, stays=SkipReason.STATIC_NODE_POOL)
    assert names(plan(leaving, floor=0)) == ["w"]


def test_worker_that_may_not_go_anyway_keeps_its_own_reason() -> None:
    """What is said about a worker is what it could change itself."""
    young = assessed("a", idle("w", for_minutes=1), stays=SkipReason.STATIC_NODE_POOL)
    assert plan(young).skipped == {worker("w").uid: SkipReason.IDLE_TOO_SHORT}


@pytest.mark.parametrize("whole_node", [False, True])
def test_no_more_nodes_are_emptied_than_there_is_room_for(whole_node: bool) -> None:
    """The newest go; the others wait, and older nodes are not emptied in their place."""
    nodes = [
        assessed(name, idle(f"{name}1"), idle(f"{name}2"), seen_minutes_ago=at, node_pool="p")
        for name, at in (("a", OLD), ("b", MID), ("c", NEW))
    ]
    elsewhere = assessed("z", idle("z1"), seen_minutes_ago=2 * OLD, node_pool="q")
    limits = ReapRules(floor=1, whole_node=whole_node)
    decided = plan_evictions([*nodes, elsewhere], limits, rooms={"p": 1})
    assert names(decided) == ["c1", "c2"]
    assert decided.emptied == ("p",)
    assert decided.skipped[worker("b1").uid] is decided.skipped[worker("a2").uid] is SkipReason.EMPTY_BUDGET
    assert decided.skipped[worker("z1").uid] is SkipReason.FLOOR  # the six of p would go


def test_node_that_is_not_emptied_needs_no_room() -> None:
    """A busy worker, or one that the floor keeps, holds the node: no budget is touched."""
    busy = assessed("a", idle("w1"), worker("w2"), seen_minutes_ago=NEW, node_pool="p")
    assert names(plan_evictions([busy], ReapRules(floor=0), rooms={"p": 0})) == ["w1"]
    floor = assessed("a", idle("w1", for_minutes=11), idle("w2"), node_pool="p")
    assert names(plan_evictions([floor], ReapRules(floor=1), rooms={"p": 0})) == ["w1"]


def test_leaving_node_needs_no_room() -> None:
    """It goes anyway."""
    leaving = assessed("a", idle("w"), departure=Departure.DISRUPTED, node_pool="p")
    assert names(plan_evictions([leaving], ReapRules(floor=0), rooms={"p": 0})) == ["w"]


@given(
    shapes=st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from(["p", "q", None]), st.booleans()), max_size=8
    ),
    rooms=st.dictionaries(st.sampled_from(["p", "q"]), st.integers(0, 3)),
    floor=st.integers(0, 4),
    max_per_pass=st.integers(0, 5),
    whole_node=st.booleans(),
)
def test_rooms_are_never_exceeded(
    shapes: list[tuple[int, bool, str | None, bool]],
    rooms: dict[str, int],
    floor: int,
    max_per_pass: int,
    whole_node: bool,
) -> None:
    """Whatever the limits: of each NodePool no more nodes are emptied than it has room, and all workers are told."""
    nodes = [
        assessed(
            f"n{position}",
            *(idle(f"n{position}-{number}") for number in range(count)),
            *([worker(f"busy-{position}")] if busy else []),
            seen_minutes_ago=10 + position,
            node_pool=node_pool,
            departure=Departure.CORDONED if leaving else None,
        )
        for position, (count, busy, node_pool, leaving) in enumerate(shapes)
    ]
    limits = ReapRules(floor=floor, max_per_pass=max_per_pass, whole_node=whole_node)
    decided = plan_evictions(nodes, limits, rooms=rooms)
    gone = {victim.uid for victim in decided.victims}
    emptied = [
        each.node_pool
        for each in nodes
        if not each.is_leaving and not each.is_kept and each.reapable and {w.uid for w in each.reapable} <= gone
    ]
    assert all(emptied.count(name) <= room for name, room in rooms.items())
    assert gone | decided.skipped.keys() == {w.uid for each in nodes for w in each.reapable}
    assert not gone & decided.skipped.keys()
    if not rooms:
        assert decided == plan_evictions(nodes, limits)
