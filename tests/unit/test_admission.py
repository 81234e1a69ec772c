"""How many connections a listener takes."""

from __future__ import annotations

import re
import resource
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.web import admission
from extender.web.admission import CLAIMS_PLACES, OPERATIONS_PLACES, PLACES, PLAIN_KIB, Admission

ROOT = Path(__file__).parents[2]
ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1", "127.0.0.1", "::1", "", "a socket"])


def test_one_address_gets_half_of_the_places() -> None:
    """So that whoever opens as many as it can leaves the other half to others."""
    door = Admission(10)
    assert [door.admits("10.0.0.1") for _ in range(7)] == [True] * 5 + [False] * 2
    assert [door.admits("10.0.0.2") for _ in range(7)] == [True] * 5 + [False] * 2
    assert not door.admits("10.0.0.3")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_loopback_gets_all_places(address: str) -> None:
    """The scheduler of the same pod comes from there, and whoever forwards a port."""
    door = Admission(10)
    assert [door.admits(address) for _ in range(11)] == [True] * 10 + [False]


def test_a_place_is_free_again_after_its_connection() -> None:
    """Of the address and of all."""
    door = Admission(2)
    assert door.admits("10.0.0.1")
    assert not door.admits("10.0.0.1")
    door.leave("10.0.0.1")
    assert door.admits("10.0.0.1")


def test_all_listeners_filled_stay_well_below_the_limit_of_memory() -> None:
    """A quarter of what the manifests allow is left, on the largest cluster that is measured (docs/benchmarks.md)."""
    manifest = (ROOT / "manifests/base/scheduler.yaml").read_text()
    (limit,) = (int(mib) for mib in re.findall(r"limits:\s+memory: (\d+)Mi", manifest))
    budget = re.search(r"resident memory, at its peak \| <= (\d+) MiB", (ROOT / "docs/benchmarks.md").read_text())
    assert budget is not None
    without_tls = 2 * OPERATIONS_PLACES.plain * PLAIN_KIB  # operations and history
    assert int(budget[1]) + (CLAIMS_PLACES.kib + PLACES.kib + without_tls) / 1024 <= 0.75 * limit


@given(st.lists(st.tuples(st.booleans(), ADDRESSES)))
def test_there_are_never_more_than_most(steps: list[tuple[bool, str]]) -> None:
    """Whoever comes and goes in whatever order."""
    door, there = Admission(6), Counter[str]()
    for comes, address in steps:
        if comes:
            there[address] += door.admits(address)
        elif there[address]:
            door.leave(address)
            there[address] -= 1
        assert there.total() <= 6
        assert max((count for each, count in there.items() if each not in ("127.0.0.1", "::1")), default=0) <= 3


@pytest.mark.parametrize(
    ("now", "becomes"),
    [
        ((1024, 524288), (admission.OPEN_FILES, 524288)),
        ((1024, 4096), (4096, 4096)),
        ((4096, 4096), None),
        ((65536, 65536), None),
    ],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(
    now: tuple[int, int], becomes: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never lowered, nor written as it is."""
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: now)
    monkeypatch.setattr(resource, "setrlimit", lambda *given: set_to.append(given))
    admission.allow_open_files()
    assert set_to == ([] if becomes is None else [(resource.RLIMIT_NOFILE, becomes)])
