"""The last decisions of this process, in memory: so many, and so many bytes, whatever the names are.

Owns the bound and the joining of a placement with where the worker went. Each is kept as a line: what it takes is
known, and no garbage collection walks over it. A placement's is written at every answer to a scheduler, so it is put
into the words in which it is sent only when somebody reads it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from extender.logs import fields
from extender.model import Pod
from extender.policy.decisions import (
    Decision,
    Kept,
    KeptPlacement,
    decode_kept_placement,
    encode_decision,
)

log = logging.getLogger("warmnode.decisions")

MOST_DECISIONS = 10_000
MOST_BYTES = 10 * 1024 * 1024
ENTRY_BYTES = 64
"""What Python takes for an entry beside the characters of its line, measured."""
WAITING_BYTES = 200
"""What it takes for a placement whose worker is not bound yet, measured."""


class DecisionHistory:
    """A ring of decisions. The oldest are forgotten first.

    ``now`` is the clock of those that decide. ``is_logged`` is asked at each decision: then it is written to the log
    too, as one line.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime],
        is_logged: Callable[[], bool] = lambda: False,
        most_decisions: int = MOST_DECISIONS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.now = now
        self._is_logged = is_logged
        self._most_decisions = most_decisions
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._first = 0  # the running number of the oldest line
        self._unbound: dict[str, int] = {}  # number of the last placement of each worker that is not bound yet
        self._line_bytes = 0

    @property
    def size_bytes(self) -> int:
        """What all of it takes in memory, about."""
        return self._line_bytes + ENTRY_BYTES * len(self._lines) + WAITING_BYTES * len(self._unbound)

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, decision: Kept) -> None:
        """Remember a decision."""
        if self._is_logged():
            _tell("decision", decision.decision() if isinstance(decision, KeptPlacement) else decision)
        line = encode_decision(decision)
        if isinstance(decision, KeptPlacement) and decision.uid:
            self._unbound[decision.uid] = self._first + len(self._lines)
        self._lines.append(line)
        self._line_bytes += len(line)
        self._keep_within_bounds()

    def bound(self, worker: Pod) -> KeptPlacement | None:
        """Join a worker that got its node with its last placement. None: there is none, or it was joined before."""
        number = self._unbound.pop(worker.uid, None) if worker.node is not None else None
        if number is None:
            return None
        known = self._lines[number - self._first]
        placement = decode_kept_placement(known)
        assert placement is not None  # noqa: S101 - only these wait
        after = round(max(0.0, (self.now() - placement.at).total_seconds()), 3)
        joined = msgspec.structs.replace(placement, node=worker.node, bound_after_seconds=after)
        line = self._lines[number - self._first] = encode_decision(joined)
        self._line_bytes += len(line) - len(known)
        self._keep_within_bounds()
        if self._is_logged():
            _tell("bound", joined.decision())
        return joined

    def lines(self, word: str = "", *, latest_first: bool = False) -> Iterator[bytes]:
        """Give the lines as they are sent, of this moment; with ``word`` those that hold it as a JSON string, and maybe
        a few more. Each is made when it is taken.
        """
        wanted = msgspec.json.encode(word)
        found = [line for line in self._lines if not word or wanted in line]
        return map(_as_sent, reversed(found) if latest_first else found)

    def _keep_within_bounds(self) -> None:
        while self._lines and (len(self._lines) > self._most_decisions or self.size_bytes > self._most_bytes):
            line = self._lines.popleft()
            self._line_bytes -= len(line)
            placement = decode_kept_placement(line) if self._unbound else None
            if placement is not None and self._unbound.get(placement.uid) == self._first:
                del self._unbound[placement.uid]
            self._first += 1


def _as_sent(line: bytes) -> bytes:
    placement = decode_kept_placement(line)
    return line if placement is None else encode_decision(placement.decision())


def _tell(message: str, decision: Decision) -> None:
    log.info(message, extra=fields(**msgspec.to_builtins(decision)))
