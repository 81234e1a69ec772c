"""Prioritize: range, subset, order."""

from hypothesis import given
from hypothesis import strategies as st

from extender.model import Departure, Ending
from extender.policy.ages import order_key
from extender.policy.scoring import PreferenceKey, Ranking, preference_key, score_nodes
from tests.builders import minutes_ago, node

keys: st.SearchStrategy[PreferenceKey] = st.tuples(
    st.integers(0, 1), st.integers(0, 1), st.integers(0, 20), st.integers(0, 7), st.uuids().map(str)
)
clusters = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), keys, max_size=40).map(Ranking)
requests = st.lists(st.text("abcdefgh", min_size=1, max_size=3), max_size=60)


@given(requests, clusters)
def test_score_is_nine_at_most_each_once_from_the_request(names: list[str], known: Ranking) -> None:
    """Only known hosts of the request are scored, at most nine, each once, with 10, 9, ... 2."""
    scores = score_nodes(names, known)
    hosts = [host for host, _ in scores]
    assert len(set(hosts)) == len(hosts)
    assert set(hosts) <= set(names) & known.keys()
    assert [score for _, score in scores] == list(range(10, 10 - len(scores), -1))
    assert len(scores) == min(9, len(set(names) & known.keys()))


@given(requests, clusters)
def test_score_follows_preference(names: list[str], known: Ranking) -> None:
    """No host that was left out or scored lower is preferred to one that scored higher."""
    hosts = [host for host, _ in score_nodes(names, known)]
    assert hosts == sorted(set(names) & known.keys(), key=known.__getitem__)[:9]


@given(requests, clusters, st.randoms())
def test_score_ignores_input_order(names: list[str], known: Ranking, random: object) -> None:
    """kube-scheduler sends names in random order."""
    assert score_nodes(names[::-1], known) == score_nodes(names, known)


@given(st.lists(st.sampled_from("abcdefghij"), min_size=3, unique=True), clusters)
def test_score_third_node_flips_nobody(names: list[str], known: Ranking) -> None:
    """Taking one candidate away leaves the order of the others as it was."""
    gone, *rest = names
    before = [host for host, _ in score_nodes(names, known) if host != gone]
    after = [host for host, _ in score_nodes(rest, known)]
    assert after[: len(before)] == before


def test_preference_leaving_scores_nothing() -> None:
    """A leaving node has no preference at all."""
    key = order_key(node(), minutes_ago(5))
    assert preference_key(key, Departure.CORDONED, None) is None


def test_preference_ending_comes_after_all_staying() -> None:
    """An ending node comes after a staying one that was never seen."""
    ending = preference_key(order_key(node("old"), minutes_ago(999)), None, Ending.WORKERS_TERMINATING)
    unseen = preference_key(order_key(node("new"), None), None, None)
    assert ending is not None
    assert unseen is not None
    assert unseen < ending


@given(clusters, st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | keys), max_size=20))
def test_ranking_changed_in_place_equals_one_made_anew(
    ranking: Ranking, changes: list[tuple[str, PreferenceKey | None]]
) -> None:
    """Whatever comes and goes, the order is that of the keys as they are, and those that are not ending are counted."""
    expected = dict(ranking)
    for name, key in changes:
        ranking.put(name, key)
        if key is None:
            expected.pop(name, None)
        else:
            expected[name] = key
    assert dict(ranking) == expected
    assert list(ranking) == [name for _, name in sorted((key, name) for name, key in expected.items())]
    assert ranking.staying == sum(not key[0] for key in expected.values())


@given(
    st.sampled_from([0, 1, 8, 100, 400]),
    st.lists(st.integers(0, 450), max_size=30),
    st.integers(0, 12),
    st.booleans(),
)
def test_the_first_candidates_are_those_of_a_sort(nodes: int, candidates: list[int], count: int, many: bool) -> None:
    """However few or many they are, and wherever in the order: the ways of looking agree, after a change too."""
    ranking = Ranking({f"n{i:03}": (0, 0, i, 0, f"u{i}") for i in range(nodes)})
    names = [f"n{i:03}" for i in candidates] + [f"x{i}" for i in range(500 * many)]
    assert ranking.first(names, count) == sorted({name for name in names if name in ranking})[:count]
    ranking.put("n000", (1, 0, 0, 0, "last"))
    expected = sorted({name for name in names if name in ranking}, key=lambda name: (name == "n000", name))
    assert ranking.first(names, count) == expected[:count]
    assert list(ranking.places().values()) == list(range(1, len(ranking) + 1))
