"""Refusals of the two APIs: what a caller is told who is to come again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from extender.web.refusals import retry_after


@pytest.mark.parametrize(("seconds", "told"), [(0, "1"), (0.001, "1"), (1, "1"), (1.2, "2"), (300, "300")])
def test_whoever_is_to_come_again_waits_a_second_at_least(seconds: float, told: str) -> None:
    """0 would be taken for at once, by all of them."""
    assert retry_after(timedelta(seconds=seconds)) == {"Retry-After": told}
