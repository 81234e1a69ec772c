"""How often one caller may call."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from extender.web.limits import REMEMBERED_CALLERS, RateLimit


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_burst_passes_and_then_one_call_at_a_time() -> None:
    """Whoever waits as long as they are told to gets through."""
    clock = Clock()
    limit = RateLimit(per_second=2, burst=3, timer=clock)
    assert [limit.take("a") for _ in range(3)] == [None] * 3
    assert limit.take("a") == timedelta(seconds=0.5)
    assert limit.take("b") is None, "each caller has a bucket of its own"
    clock.seconds = 0.5
    assert limit.take("a") is None
    assert limit.take("a") == timedelta(seconds=0.5)
    clock.seconds = 1000
    assert [limit.take("a") is None for _ in range(4)] == [True] * 3 + [False]


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_no_more_pass_than_the_rate_and_the_burst(pauses: list[float]) -> None:
    """Over any time: refused calls cost nothing, and nothing adds up beyond the burst."""
    clock = Clock()
    limit = RateLimit(per_second=10, burst=5, timer=clock)
    passed = 0
    for pause in pauses:
        clock.seconds += pause
        passed += limit.take("a") is None
    assert passed <= 5 + 10 * sum(pauses) + 1e-6


def test_forgotten_callers_start_afresh() -> None:
    """The memory is bounded; it takes as many callers to be forgotten."""
    limit = RateLimit(per_second=1, burst=1, timer=lambda: 0.0)
    assert limit.take("first") is None
    for number in range(REMEMBERED_CALLERS):
        limit.take(str(number))
    assert limit.take("first") is None
