"""Claim against reap: 10,000 random orders of the calls to an API server in memory, with a real one's preconditions.

``WARMNODE_RACES=100000`` runs as many, in about ten minutes.
"""

from __future__ import annotations

import os

import pytest

from tests.racing import races

pytestmark = pytest.mark.no_cover  # nothing but CPU, which that doubles; the same code is covered by the unit test

PARTS = int(os.environ.get("WARMNODE_RACES", "10000")) // 1000


@pytest.mark.parametrize("part", range(PARTS))
async def test_ten_thousand_orders(part: int) -> None:
    """As tests/unit/test_claim_races.py, with other seeds."""
    outcomes = await races(range(1000 * (part + 1), 1000 * (part + 2)))
    assert min(outcomes["claimed"], outcomes["evicted"], outcomes["NothingToClaim"]) > 100, "both sides win often"
