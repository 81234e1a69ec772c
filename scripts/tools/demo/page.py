"""What the demo prints: steps with their time, tables, colours where they help. Owns the words; decides nothing."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence

from scripts.tools.demo.findings import Findings, Row
from scripts.tools.demo.tide import Shore

WIDTH = 100
BEFORE, ADDED, FREE = "o", "#", "."
"""One character for each worker that fits on a node: ran there before, the Deployment's, room."""


class Page:
    """Writes to standard output. Colours only on a terminal, and not where NO_COLOR is set."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._started = time.monotonic()
        self._colours = sys.stdout.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"

    def step(self, text: str) -> None:
        """Tell what is done, with the time since the start."""
        self.line(self._painted(f"{time.monotonic() - self._started:5.1f} s  ", "2") + text)

    def paragraph(self, text: str) -> None:
        """Write text, wrapped."""
        self.line()
        self.line(textwrap.fill(text, WIDTH))

    def title(self, text: str) -> None:
        """Write a line that stands out."""
        self.line()
        self.line(self._painted(text, "1"))

    def line(self, text: str = "") -> None:
        """Write one line as it is."""
        print(text, flush=True)

    def placements(self, findings: Findings) -> None:
        """Write both runs as a table, oldest node first."""
        slots = max([row.room.running + row.room.free for row in findings.rows] + [len("warmnode") - 3])
        names = max(len(row.node.name) for row in findings.rows)
        why = WIDTH - names - 2 * (slots + 3) - 12
        head = f"{'NODE':{names}}  {'RANK':>4}  {'WHY, as warmnode plan says':{why}}"
        self.line(self._painted(f"{head}  {'DEFAULT':{slots + 3}}  {'WARMNODE':{slots + 3}}".rstrip(), "1"))
        for row in findings.rows:
            rank = "-" if row.node.rank is None else str(row.node.rank)
            reason = textwrap.shorten(row.node.why, why, placeholder=" ...")
            bars = "  ".join(self._bar(row, added, slots) for added in (row.default, row.warmnode))
            self.line(f"{row.node.name:{names}}  {rank:>4}  {reason:{why}}  {bars}")
        self.line(f"{BEFORE} a worker that ran before   {ADDED} one of the Deployment's   {FREE} room for one more")

    def shores(self, shores: Sequence[Shore]) -> None:
        """Write the peak of the burst and what is left as a table, oldest node first."""
        slots = max([each.busy + each.burst for each in shores] + [len("AT THE PEAK")])
        names = max(len(each.node.name) for each in shores)
        self.line(self._painted(f"{'NODE':{names}}  {'RANK':>4}  {'AT THE PEAK':{slots}}  AFTER IT", "1"))
        for each in shores:
            rank = "-" if each.node.rank is None else str(each.node.rank)
            peak = self._workers(each.busy, each.burst) + " " * (slots - each.busy - each.burst)
            after = self._workers(each.busy_after, each.burst_after) if each.is_there else "taken by Karpenter"
            self.line(f"{each.node.name:{names}}  {rank:>4}  {peak}  {after}".rstrip())
        self.line(f"{BEFORE} a busy worker   {ADDED} one of the burst")

    def _workers(self, busy: int, burst: int) -> str:
        return BEFORE * busy + self._painted(ADDED * burst, "32")

    def empty_nodes(self, findings: Findings) -> None:
        """Write which nodes run no worker in each case."""
        self.line("Nodes without any worker, which Karpenter could take away now:")
        for name in ("default", "warmnode"):
            nodes = ", ".join(row.node.name for row in findings.empty(name)) or "none"
            self.line(f"  {name:10}{self._painted(nodes, '32') if nodes != 'none' else nodes}")

    def commands(self, title: str, commands: Iterable[tuple[str, str]]) -> None:
        """Write commands to copy, each with what it is for."""
        self.title(title)
        for command, purpose in commands:
            self.line(f"  # {purpose}")
            self.line(f"  {command}")

    def _bar(self, row: Row, added: int, slots: int) -> str:
        free = max(0, row.room.free - added) if row.node.rank is not None else 0
        bar = BEFORE * row.room.running + self._painted(ADDED * added, "32") + FREE * free
        return bar + " " * (slots - row.room.running - added - free) + f" {added or '-':>2}"

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours and text else text
