"""The rule that was dropped, as the experiment runs it."""

from __future__ import annotations

from collections.abc import Set

from hypothesis import given
from hypothesis import strategies as st

from extender.policy.affinity import Affinity, KeyHistory
from extender.policy.scoring import Ranking
from scripts.tools.experiment.by_hash import by_hash

NAMES = [f"node-{number}" for number in range(8)]
names = st.frozensets(st.sampled_from(NAMES))


def chosen(candidates: Set[str], reach: int, key: str = "a") -> list[str]:
    ranking = Ranking({name: (0, place, 0, 0, name) for place, name in enumerate(NAMES)})
    return list(by_hash(candidates, ranking, Affinity(key=key, reach=reach, history=KeyHistory())))


@given(names, st.integers(0, 9))
def test_a_hash_chooses_among_the_candidates_of_the_set(candidates: frozenset[str], reach: int) -> None:
    assert set(chosen(candidates, reach)) == candidates & set(NAMES[:reach])


@given(names, names, st.integers(0, 9))
def test_another_candidate_changes_the_order_of_no_two(some: frozenset[str], more: frozenset[str], reach: int) -> None:
    """As consistent hashing has it: a full node moves only its own keys."""
    assert [name for name in chosen(some | more, reach) if name in some] == chosen(some, reach)


def test_keys_differ_in_their_nodes() -> None:
    firsts = {chosen(frozenset(NAMES), 8, key=f"tenant-{number}")[0] for number in range(100)}
    assert firsts == set(NAMES)
