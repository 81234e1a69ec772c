"""The notation of durations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from extender.policy.durations import LONGEST, Interval, PositiveDuration, format_duration, parse_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("0s", 0), ("0", 0), ("1h1m1s1ms", 3661.001),
        ("8760h", 365 * 86400),
    ],
)  # fmt: skip
def test_duration_is_the_sum_of_its_parts(written: str, seconds: float) -> None:
    """Hours, minutes, seconds and milliseconds add up, and "0" needs no unit."""
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written", ["", "s", "90", "-5s", "1.5h", "5 m", "30m1h", "5M", "1d", "5m\n", " 5m", "٣s", None, True, [], {}]
)
def test_duration_in_another_notation_is_refused(written: object) -> None:
    """Whatever is not in the notation is refused with examples of it."""
    with pytest.raises(ValueError, match="must be a duration such as"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("number", "remedy"), [(90, 'write "90s", not 90'), (0, 'write "0s"'), (1.5, 'write "1500ms"')]
)
def test_duration_as_bare_number_says_what_to_write(number: float, remedy: str) -> None:
    """A bare number has no unit; the message has the notation."""
    with pytest.raises(ValueError, match=remedy):
        parse_duration(number)


@pytest.mark.parametrize("written", ["8761h", "999999999h", "8760h1ms"])
def test_duration_longer_than_a_year_is_refused(written: str) -> None:
    """A year is the limit, so that adding a duration to a time never overflows."""
    with pytest.raises(ValueError, match="at most 8760h"):
        parse_duration(written)


@pytest.mark.parametrize(("kind", "shortest", "shorter"), [(PositiveDuration, "1ms", "0s"), (Interval, "1s", "999ms")])
def test_duration_shorter_than_its_kind_allows_is_refused(kind: Any, shortest: str, shorter: str) -> None:
    """With the shortest one that is allowed."""
    adapter: TypeAdapter[timedelta] = TypeAdapter(kind)
    assert adapter.validate_python(shortest) == parse_duration(shortest)
    with pytest.raises(ValidationError, match=f"must be at least {shortest}"):
        adapter.validate_python(shorter)


@given(st.integers(min_value=0, max_value=LONGEST // timedelta(milliseconds=1)))
def test_duration_survives_being_written_and_read(milliseconds: int) -> None:
    """Reading what was written gives the same duration, to the millisecond."""
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789hms .-", max_size=12))
def test_duration_from_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    """No text makes the parser fail in another way, and no result is negative or longer than a year."""
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert timedelta() <= duration <= LONGEST
