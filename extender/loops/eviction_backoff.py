"""Who is not asked again yet: workers under a budget that said no or whose eviction was refused, and an API server
that wants patience.

Owns how long a refusal lasts. Knows refusals only, and forgets those that are over; a restart forgets all of them,
which costs one question each.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from extender.clock import Steady
from extender.kube.eviction import FreshPod
from extender.model import Pod, Selector, SkipReason
from extender.policy.pools import selects

SHORTEST = timedelta(seconds=10)
LONGEST = timedelta(minutes=5)


def backoff(failures: int) -> timedelta:
    """Say how long to wait after so many failures in a row: 10 s, doubled each time, 5 min at most."""
    return min(SHORTEST * (1 << min(failures - 1, 10)), LONGEST)


@dataclass(slots=True)
class _Blocked:
    """A budget that said no: until when it is not asked again, and whom it covers (None: the whole namespace)."""

    until: Steady
    pause: timedelta
    selector: Selector | None


@dataclass(slots=True)
class _Refused:
    """A worker whose eviction was refused: until when it is not asked for, and how often in a row that was."""

    until: Steady
    times: int


class Holds:
    def __init__(self) -> None:
        self._blocked: dict[tuple[str, str], _Blocked] = {}
        self._held: dict[str, Steady] = {}
        self._refused: dict[str, _Refused] = {}
        self._throttled_until: Steady | None = None

    def held(self, now: Steady) -> dict[str, SkipReason]:
        """Give the workers, by UID, that would be refused now, and forget what is over.

        A budget, and a worker that was refused, is remembered for five minutes longer, so that its next refusal lasts
        longer than the one before.
        """
        self._held = {uid: until for uid, until in self._held.items() if now < until}
        self._blocked = {key: each for key, each in self._blocked.items() if now < each.until + LONGEST}
        self._refused = {uid: each for uid, each in self._refused.items() if now < each.until + LONGEST}
        refused = (uid for uid, each in self._refused.items() if now < each.until)
        return dict.fromkeys(refused, SkipReason.BACKING_OFF) | dict.fromkeys(self._held, SkipReason.BUDGET_BLOCKED)

    def is_throttled(self, now: Steady) -> bool:
        """The API server asked for patience, and the time that it asked for is not over."""
        return self._throttled_until is not None and now < self._throttled_until

    def is_covered(self, fresh: FreshPod, now: Steady) -> bool:
        """A budget that said no covers this pod too; then it is held as long as the budget."""
        for (namespace, _), blocked in self._blocked.items():
            if (
                namespace == fresh.pod.namespace
                and now < blocked.until
                and (blocked.selector is None or selects(blocked.selector, fresh.labels))
            ):
                self._held[fresh.pod.uid] = blocked.until
                return True
        return False

    def block(
        self, pod: Pod, budget: str | None, selector: Selector | None, retry_after: timedelta | None, now: Steady
    ) -> None:
        """Hold a pod whose budget said no, and those that ``selector`` covers. ``budget`` None: it was not told."""
        key = (pod.namespace, budget or "")
        known = self._blocked.get(key)
        pause = retry_after or (min(known.pause * 2, LONGEST) if known is not None else SHORTEST)
        self._blocked[key] = _Blocked(until=now + pause, pause=pause, selector=selector)
        self._held[pod.uid] = now + pause

    def block_for_long(self, pod: Pod, now: Steady) -> None:
        """Hold a pod alone, for five minutes: several budgets cover it, so that no eviction is ever granted."""
        self._held[pod.uid] = now + LONGEST

    def refuse(self, pod: Pod, now: Steady) -> None:
        """Hold a pod alone whose eviction was refused or failed: 10 s, doubled each time, 5 min at most."""
        known = self._refused.get(pod.uid)
        times = 1 if known is None else known.times + 1
        self._refused[pod.uid] = _Refused(until=now + backoff(times), times=times)

    def throttle(self, retry_after: timedelta | None, now: Steady) -> None:
        """Hold everything for as long as the API server asks, 10 s where it does not say."""
        self._throttled_until = now + (retry_after or SHORTEST)
