"""Who else writes the deletion costs of our workers, and where we yield.

Owns the judgement. A writer that keeps overwriting ours in a pool makes us stop there. Karpenter's own one (its gate
PodDeletionCostManagement) is known by its name on one pod: it prices the pods of all ReplicaSets on its nodes, so what
it does in one pool holds everywhere. Both hold until the configuration changes, so that nothing flaps.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

from extender.clock import Clock, Steady
from extender.kube.errors import KubeError
from extender.logs import fields
from extender.model import Pod

log = logging.getLogger("warmnode.costs")

CONTESTED = 3
"""So many values of ours overwritten, or removed within an hour, in a pool, and we stop there."""
CONTEST_WINDOW = timedelta(hours=1)
ASKED = 3
"""So many foreign values of a pool are asked about in an hour: a writer that is not Karpenter may have priced all."""
ASKED_AT_ONCE = 8
GIVEN_UP = (
    "Karpenter writes the deletion costs of ReplicaSets' pods itself (feature gate PodDeletionCostManagement). "
    "Warmnode gives them up and writes karpenter.sh/disruption-cost only: Karpenter still takes nodes of idle workers "
    "first, but a scale-in may take a busy worker. Switch the gate off, or hold busy workers (claims.doNotDisrupt)"
)


@dataclass(slots=True, kw_only=True, eq=False)
class Contests:
    """Remembers who yields to whom. ``is_priced_by_karpenter`` reads who wrote the deletion cost of a pod, ``gave_up``
    says in the cluster why ours are given up."""

    is_priced_by_karpenter: Callable[[Pod], Awaitable[bool]]
    gave_up: Callable[[Pod, str], Awaitable[None]]
    clock: Clock
    karpenter_writes: bool = field(default=False, init=False)
    _contested: set[str] = field(default_factory=set, init=False)
    _vanished: Counter[str] = field(default_factory=Counter, init=False)
    _asked: defaultdict[str, set[tuple[str, str | None]]] = field(default_factory=lambda: defaultdict(set), init=False)
    _counted_since: Steady = field(init=False)

    def __post_init__(self) -> None:
        self._counted_since = self.clock.steady()

    def is_contested(self, pool: str) -> bool:
        """Another writer than Karpenter overwrites ours in this pool."""
        return pool in self._contested

    def forgive(self) -> None:
        """Begin anew: the configuration changed, and the other writer may be gone."""
        self.karpenter_writes = False
        self._contested.clear()
        self._forget()

    def vanished(self, pool: str) -> None:
        """Count a value of ours that is gone together with its mark: somebody clears what we write."""
        self._vanished[pool] += 1
        self._judge(pool, 0)

    async def look(self, overwritten: Mapping[str, int], foreign: Iterable[Pod]) -> None:
        """Judge by one look at all workers: values overwritten, by pool, and pods of which Karpenter may be the writer.

        Karpenter first: what it overwrites is no contest.
        """
        if self.clock.steady() - self._counted_since > CONTEST_WINDOW:
            self._forget()
        if not self.karpenter_writes:
            await self._ask(foreign)
        if not self.karpenter_writes:
            for pool, number in overwritten.items():
                self._judge(pool, number)

    def _forget(self) -> None:
        self._vanished.clear()
        self._asked.clear()
        self._counted_since = self.clock.steady()

    async def _ask(self, foreign: Iterable[Pod]) -> None:
        """Read who wrote some foreign values, of each pool one that was not asked about."""
        of_pool: dict[str, Pod] = {}
        for pod in foreign:
            asked = self._asked[pod.pool or ""]
            if len(asked) < ASKED and (pod.uid, pod.deletion_cost) not in asked:
                of_pool.setdefault(pod.pool or "", pod)
        for pool, pod in islice(of_pool.items(), ASKED_AT_ONCE):
            try:
                is_karpenters = await self.is_priced_by_karpenter(pod)
            except KubeError as error:
                log.warning("not known who wrote a deletion cost", extra=fields(pod=pod.name, problem=str(error)))
                return
            self._asked[pool].add((pod.uid, pod.deletion_cost))
            if is_karpenters:
                self.karpenter_writes = True
                self._contested.clear()
                log.warning("Karpenter writes deletion costs, ours are given up", extra=fields(pool=pool, pod=pod.name))
                await self.gave_up(pod, GIVEN_UP)
                return

    def _judge(self, pool: str, overwritten: int) -> None:
        if pool not in self._contested and overwritten + self._vanished[pool] >= CONTESTED:
            self._contested.add(pool)
            log.warning(
                "deletion costs are left alone: another writer overwrites them",
                extra=fields(pool=pool, overwritten=overwritten, removed=self._vanished[pool]),
            )
