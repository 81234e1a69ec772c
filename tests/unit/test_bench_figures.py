"""What the benchmarks say of their rounds."""

import pytest

from scripts.tools.benchmarks.figures import Spread, ratios, rotated, shown, spread


def test_a_spread_is_the_median_with_the_lowest_and_the_highest_round() -> None:
    assert spread([3.0, 1.0, 9.0]) == Spread(median=3.0, low=1.0, high=9.0)


def test_a_spread_of_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="no round"):
        spread([])


def test_ratios_compare_rounds_with_their_own_round() -> None:
    """A round that is twice as slow on both sides changes nothing: ratios of medians would say otherwise."""
    assert ratios([1.0, 20.0, 3.0], [2.0, 40.0, 4.0]) == [0.5, 0.5, 0.75]


def test_ratios_refuse_sides_that_did_not_run_equally_often() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [([0.314, 0.3, 0.33], 2, "0.31 (0.30-0.33)"), ([1234.5], 0, "1,234"), ([0.301, 0.302, 0.3], 2, "0.30")],
)
def test_a_range_is_shown_where_there_is_one_to_see(values: list[float], digits: int, text: str) -> None:
    assert shown(values, digits) == text


def test_arms_take_turns_so_that_each_starts_a_round_and_no_order_is_kept() -> None:
    arms = ["a", "b", "c"]
    orders = [rotated(arms, turn) for turn in range(6)]
    assert {order[0] for order in orders[:3]} == set(arms)
    assert len({tuple(order) for order in orders}) == 6
    assert all(sorted(order) == arms for order in orders)
