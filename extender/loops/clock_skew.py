"""Tells when the time of day here is off the API server's: whoever compares it with times on objects stands down then.

Tells only. Each loop asks the clock itself, right before it writes.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from math import nan

from extender.clock import Clock
from extender.logs import fields
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.clock")

LOOK = timedelta(seconds=5)


async def tell_skew(clock: Clock, metrics: Metrics) -> None:
    """Look every five seconds, and log each change; the metric is read when asked for. Ends by cancellation only."""
    metrics.clock_ahead.set_function(lambda: _ahead_seconds(clock))
    was_off = False
    while True:
        is_off = clock.is_off
        if is_off and not was_off:
            log.error(
                "nothing is evicted, claimed or marked: the clock here is wrong", extra=fields(clock=clock.told_off)
            )
        elif was_off and not is_off:
            log.info("the clock here is right again")
        was_off = is_off
        await asyncio.sleep(LOOK.total_seconds())


def _ahead_seconds(clock: Clock) -> float:
    skew = clock.skew()
    return nan if skew is None else -skew.total_seconds()
