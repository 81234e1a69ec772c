"""Cache keys: what is counted on a node, what is forgotten, and what the window may change."""

import math
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.policy.affinity import Affinity, KeyHistory, KeyUse
from extender.policy.scoring import PreferenceKey, Ranking, key_first, score_nodes
from tests.builders import NOW, minutes_ago

names = st.text("abcdef", min_size=1, max_size=2)
preferences: st.SearchStrategy[PreferenceKey] = st.tuples(
    st.integers(0, 1), st.integers(0, 1), st.integers(0, 20), st.integers(0, 7), st.uuids().map(str)
)
rankings = st.dictionaries(names, preferences, max_size=25).map(Ranking)
placements = st.lists(st.tuples(names, st.sampled_from("xyz")), max_size=60)
windows = st.integers(1, 15)


def history_of(placed: list[tuple[str, str]]) -> KeyHistory:
    history = KeyHistory()
    for node, key in placed:
        history.record(node, key, NOW)
    return history


def affinity(history: KeyHistory, window: int, key: str = "x") -> Affinity:
    return Affinity(key=key, window=window, history=history)


@given(st.lists(names, max_size=40), rankings, placements, windows)
def test_window_key_decides_inside_and_age_outside(
    candidates: list[str], ranking: Ranking, placed: list[tuple[str, str]], window: int
) -> None:
    """Of the oldest candidates those where the key ran most come first; the rest follows by age."""
    by_age = sorted(set(candidates) & ranking.keys(), key=ranking.__getitem__)
    runs = Counter(node for node, key in placed if key == "x")
    scored = [name for name, _ in score_nodes(candidates, ranking, affinity(history_of(placed), window))]
    inside = [name for name in scored if name in by_age[:window]]
    assert scored[: len(inside)] == inside
    assert scored[len(inside) :] == by_age[window:9]
    expected = sorted(by_age[:window], key=lambda name: (ranking[name][0], -runs[name], ranking[name]))
    assert inside == expected[:9]


@given(st.lists(names, max_size=40), rankings, placements, windows, st.randoms(use_true_random=False))
def test_window_depends_on_candidates_and_counts_only(
    candidates: list[str], ranking: Ranking, placed: list[tuple[str, str]], window: int, random: object
) -> None:
    """Neither the order of the request nor the order in which workers came changes an answer."""
    forth = score_nodes(candidates, ranking, affinity(history_of(placed), window))
    back = score_nodes(candidates[::-1], ranking, affinity(history_of(placed[::-1]), window))
    assert forth == back


@given(st.lists(names, max_size=40), rankings, placements, windows)
def test_window_of_one_or_a_key_that_never_ran_changes_nothing(
    candidates: list[str], ranking: Ranking, placed: list[tuple[str, str]], window: int
) -> None:
    """Age alone decides with window 1, and for a key without history."""
    history = history_of(placed)
    plain = score_nodes(candidates, ranking)
    assert score_nodes(candidates, ranking, affinity(history, 1)) == plain
    assert score_nodes(candidates, ranking, affinity(history, window, key="never")) == plain


@given(st.lists(names, unique=True, max_size=25), placements, windows)
def test_key_first_keeps_every_node(ordered: list[str], placed: list[tuple[str, str]], window: int) -> None:
    """The nodes stay the same, each once; only their order changes."""
    preference: dict[str, PreferenceKey] = {name: (0, 0, place, 0, name) for place, name in enumerate(ordered)}
    assert sorted(key_first(ordered, preference, affinity(history_of(placed), window))) == sorted(ordered)


def test_key_first_leaves_ending_nodes_behind() -> None:
    """An ending node comes after all others, however often the key ran there."""
    preference: dict[str, PreferenceKey] = {"stays": (0, 0, 5, 0, "a"), "ends": (1, 0, 1, 0, "b")}
    history = history_of([("ends", "x")] * 9)
    assert key_first(["stays", "ends"], preference, affinity(history, 5)) == ["stays", "ends"]


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
