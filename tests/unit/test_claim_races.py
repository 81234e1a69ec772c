"""Claim against reap: some hundred orders of the calls; tests/integration/test_claim_races.py runs ten thousand."""

from __future__ import annotations

from tests.racing import races


async def test_in_any_order_no_claimed_worker_is_evicted_and_none_is_claimed_twice() -> None:
    """Nobody evicts a claimed worker, claims one that is going, or takes one from its holder. A claimant that was told
    of a claim holds it, and holds a second one only where two replicas gave one before they heard of the other's, or
    where an answer was lost.
    """
    outcomes = await races(range(300))
    assert min(outcomes["claimed"], outcomes["evicted"], outcomes["NothingToClaim"]) > 30, "both sides win often"
    assert outcomes["two"] > 0, "what may happen does"
    assert min(outcomes["found"], outcomes["lost"]) > 30, "what may happen does"
