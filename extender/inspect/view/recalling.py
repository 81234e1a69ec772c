"""What the replicas of an installation tell a live view: their last decisions, and how the shadow stands.

Owns how often they are asked, and what is said of those that do not answer. Nothing waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from extender.inspect.decision_text import tell_decision, tell_standing
from extender.inspect.recall import NOBODY, History, recall_lately
from extender.inspect.text import count, printable
from extender.inspect.view.view_model import Happening
from extender.kube.api_client import KubeClient

ASKED_EVERY = timedelta(seconds=10)
LOOKED_FOR_EVERY = timedelta(minutes=1)
"""Where there is no replica."""
SHOWN = 20
"""So many decisions are shown."""
LONGEST = 2000
"""Characters of a sentence: more than the longest names make."""


class Recalling:
    """The last decisions of all replicas, as they were told last. ``has_asked`` is set once all have been asked."""

    def __init__(self, client: KubeClient) -> None:
        self.has_asked = asyncio.Event()
        self._client = client
        self._history = History(problem=NOBODY)

    async def run(self) -> None:
        """Ask again and again."""
        while True:
            self._history = await recall_lately(self._client, SHOWN)
            self.has_asked.set()
            is_alone = self._history.problem == NOBODY
            await asyncio.sleep((LOOKED_FOR_EVERY if is_alone else ASKED_EVERY).total_seconds())

    def decided(self, now: datetime) -> tuple[Happening, ...]:
        """Tell the decisions, the last first: empty where nobody told one."""
        last = self._history.decisions[: -SHOWN - 1 : -1]
        return tuple(Happening(at=each.at, text=printable(tell_decision(each, now)[:LONGEST])) for each in last)

    def shadow(self) -> Mapping[str, str]:
        """Tell of each pool in the shadow how it stands: a sentence for each replica that placed its workers."""
        told: dict[str, str] = {}
        for each in self._history.shadow:
            sentence = tell_standing(each)
            told[each.pool] = f"{told[each.pool]}; {sentence}" if each.pool in told else sentence
        return told

    def unknown(self) -> Iterator[str]:
        """Say in one line what the replicas did not tell, and why."""
        failed = [each for each in self._history.replicas if each.problem is not None]
        if self._history.problem not in (None, NOBODY):
            yield f"what was decided: {self._history.problem}"
        elif failed:
            asked = count(len(self._history.replicas), "replica")
            yield f"what {len(failed)} of {asked} decided: {failed[0].replica}: {failed[0].problem}"
