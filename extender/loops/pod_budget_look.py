"""The PodDisruptionBudgets that a pass goes by: read before it, where there are nodes that Karpenter could take.

Owns when they are read. They are read, not watched: a pass in half a minute is all that asks for them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from extender.clock import Clock, Steady
from extender.kube.errors import Forbidden, KubeError, NotFound
from extender.logs import fields
from extender.model import PodBudget
from extender.policy.node_pool_budgets import NO_BUDGETS, PodBudgets

log = logging.getLogger("warmnode.reaper")

READ_AGAIN = timedelta(seconds=1)
"""Passes of several pools that are due at once share one look."""


@dataclass(slots=True, eq=False)
class BudgetLook:
    read: Callable[[], Awaitable[Sequence[PodBudget]]]
    clock: Clock
    _read_at: Steady | None = field(default=None, init=False)
    _known: PodBudgets = field(default=NO_BUDGETS, init=False)
    _is_forbidden: bool = field(default=False, init=False)

    async def look(self) -> PodBudgets | None:
        """Give all budgets as of a moment ago; None where the API server failed: then nobody knows which nodes stay.

        Without the permission there are none, and a node that a budget holds counts as one that goes.
        """
        if self._read_at is not None and self.clock.steady() < self._read_at + READ_AGAIN:
            return self._known
        try:
            self._known = PodBudgets(await self.read())
            self._is_forbidden = False
        except (Forbidden, NotFound) as error:
            self._known = NO_BUDGETS
            if not self._is_forbidden:
                log.warning("budgets may not be read, goes on without them", extra=fields(problem=str(error)))
            self._is_forbidden = True
        except KubeError as error:
            log.warning("budgets could not be read, evicts nothing", extra=fields(problem=str(error)))
            return None
        self._read_at = self.clock.steady()
        return self._known
