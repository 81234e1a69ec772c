"""Cache keys: what is counted on a node, what is forgotten, and what a key may change."""

import math
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.policy.affinity import Affinity, KeyHistory, KeyUse
from extender.policy.scoring import PreferenceKey, Ranking, score_nodes
from tests.builders import NOW, minutes_ago

names = st.text("abcdef", min_size=1, max_size=2)
preferences: st.SearchStrategy[PreferenceKey] = st.tuples(
    st.integers(0, 1), st.integers(0, 1), st.integers(0, 20), st.integers(0, 7), st.uuids().map(str)
)
rankings = st.dictionaries(names, preferences, max_size=25).map(Ranking)
placements = st.lists(st.tuples(names, st.sampled_from("xyz")), max_size=60)
reaches = st.integers(0, 15)


def history_of(placed: list[tuple[str, str]]) -> KeyHistory:
    history = KeyHistory()
    for node, key in placed:
        history.record(node, key, NOW)
    return history


def affinity(history: KeyHistory, nodes: int, key: str = "x") -> Affinity:
    """A key that decides among the first nodes of a ranking, so many."""
    return Affinity(key=key, reach=nodes, history=history)


@given(st.lists(names, max_size=40), rankings, placements, reaches)
def test_the_key_decides_inside_and_age_outside(
    candidates: list[str], ranking: Ranking, placed: list[tuple[str, str]], nodes: int
) -> None:
    """Inside come staying nodes where the key ran, most used first, then all others by preference; none behind is
    before one inside."""
    by_age = sorted(set(candidates) & ranking.keys(), key=ranking.__getitem__)
    runs = Counter(node for node, key in placed if key == "x")
    inside = [name for name in by_age if name in list(ranking)[:nodes]]
    scored = [name for name, _ in score_nodes(candidates, ranking, affinity(history_of(placed), nodes))]
    chosen = [name for name in inside if runs[name] and not ranking[name][0]]
    chosen.sort(key=lambda name: (-runs[name], ranking[name]))
    assert scored == [*chosen, *(name for name in by_age if name not in chosen)][:9]
    assert all(name in inside for name in scored[: len(inside)])


@given(st.lists(names, max_size=40), rankings, placements, reaches)
def test_an_answer_depends_on_candidates_and_counts_only(
    candidates: list[str], ranking: Ranking, placed: list[tuple[str, str]], nodes: int
) -> None:
    """Neither the order of the request nor the order in which workers came changes an answer."""
    forth = score_nodes(candidates, ranking, affinity(history_of(placed), nodes))
    back = score_nodes(candidates[::-1], ranking, affinity(history_of(placed[::-1]), nodes))
    assert forth == back


@given(st.lists(names, max_size=40), rankings, placements, reaches)
def test_a_set_of_no_node_or_a_key_that_never_ran_changes_nothing(
    candidates: list[str], ranking: Ranking, placed: list[tuple[str, str]], nodes: int
) -> None:
    """Age alone decides where no node is inside, and for a key without history."""
    history = history_of(placed)
    plain = score_nodes(candidates, ranking)
    assert score_nodes(candidates, ranking, affinity(history, 0)) == plain
    assert score_nodes(candidates, ranking, affinity(history, nodes, key="never")) == plain


@given(st.lists(names, max_size=40), rankings, reaches)
def test_the_last_place_of_candidates_is_that_of_the_last_of_them(
    candidates: list[str], ranking: Ranking, count: int
) -> None:
    """A window of so many candidates ends with the last of them, or with the last that there is."""
    by_age = sorted(set(candidates) & ranking.keys(), key=ranking.__getitem__)
    last = ranking.last_place(candidates, count)
    assert [name for name in by_age if ranking.places()[name] <= last] == by_age[:count]


def test_a_key_leaves_ending_nodes_behind() -> None:
    """An ending node comes after all others, however often the key ran there."""
    ranking = Ranking({"stays": (0, 0, 5, 0, "a"), "ends": (1, 0, 1, 0, "b")})
    history = history_of([("ends", "x")] * 9)
    assert [name for name, _ in score_nodes(["ends", "stays"], ranking, affinity(history, 2))] == [
        "stays",
        "ends",
    ]


@given(placements, st.lists(names, max_size=5))
def test_the_nodes_of_a_key_are_known_by_use(placed: list[tuple[str, str]], gone: list[str]) -> None:
    """Each of those that are asked about once, the most used first, whatever was placed, forgotten and gone between."""
    history = KeyHistory(keys_per_node=2)
    for step, (node, key) in enumerate(placed):
        history.record(node, key, NOW + timedelta(seconds=step))
    for node in gone:
        history.forget_node(node)
    for key in "xyz":
        nodes = {node for node, _ in placed if history.use(node, key) > -math.inf}
        for among in (nodes, set(sorted(nodes)[::2])):
            by_use = sorted(((history.use(node, key), node) for node in among), key=lambda each: (-each[0], each[1]))
            assert list(history.by_use(key, among)) == by_use


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("uvwxyz"), st.integers(0, 600)), max_size=60))
def test_history_counts_each_worker_halved_for_every_hour(placed: list[tuple[str, str, int]]) -> None:
    """In whatever order workers were seen, each counts as 2 to the power of minus the hours since it was placed."""
    history = KeyHistory()
    for node, key, minutes in placed:
        history.record(node, key, minutes_ago(minutes))
    assert history.forgotten == 0
    assert len(history) == len({(node, key) for node, key, _ in placed})
    for node in "ab":
        expected: dict[str, float] = {}
        for key, minutes in ((key, minutes) for on, key, minutes in placed if on == node):
            expected[key] = expected.get(key, 0) + 2 ** (-minutes / 60)
        uses = history.uses(node, NOW)
        assert {use.key: use.workers for use in uses} == pytest.approx(expected)
        assert [use.workers for use in uses] == pytest.approx(sorted(expected.values(), reverse=True))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 6000)), max_size=40), st.integers(0, 10_000))
def test_which_node_was_used_more_is_the_same_at_any_time(placed: list[tuple[str, int]], later: int) -> None:
    """All counts fade alike, so a choice between nodes does not depend on when it is made."""
    history = KeyHistory()
    for node, minutes in placed:
        history.record(node, "x", minutes_ago(minutes))
    of_late = [sum(use.workers for use in history.uses(node, NOW + timedelta(minutes=later))) for node in "ab"]
    if of_late[0] != pytest.approx(of_late[1], rel=1e-4):
        assert (history.use("a", "x") > history.use("b", "x")) == (of_late[0] > of_late[1])


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=3), max_size=200))
def test_history_is_bounded_and_forgets_the_least_used(keys: list[str]) -> None:
    """A node never remembers more keys than allowed, and what is forgotten was used less than all that stays."""
    history = KeyHistory(keys_per_node=4)
    for step, key in enumerate(keys):
        before = {use.key: history.use("node", use.key) for use in history.uses("node", NOW)}
        forgotten = history.forgotten
        history.record("node", key, NOW + timedelta(seconds=step))
        after = {use.key for use in history.uses("node", NOW)}
        assert len(after) <= 4
        assert history.forgotten - forgotten == (len(before) == 4 and key not in before)
        assert all(before[gone] == min(before.values()) for gone in before.keys() - after)


def test_history_goes_with_its_node() -> None:
    """Whatever takes the place of a node starts without a history."""
    history = history_of([("a", "x"), ("b", "x"), ("c", "x")])
    history.forget_node("a")
    history.forget_node("never seen")
    history.keep_only({"b"})
    assert [history.use(node, "x") > -math.inf for node in "abc"] == [False, True, False]
    assert history.uses("b", NOW) == [KeyUse(key="x", workers=1)]
