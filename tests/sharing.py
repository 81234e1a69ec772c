"""How `scripts/test` deals tests out to processes that run side by side (pytest-xdist's hooks, for tests/conftest.py).

Owns what stays together and what comes first. Run without ``-n``, pytest asks nothing of this but the order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

WAITING = "tests/integration/"
KARPENTER = "tests/integration/test_karpenter"
"""Start of the names of modules that play scenes with Karpenter: minutes each, in which little is to do."""


def workers_for(paths: Iterable[str], cores: int) -> int:
    """How many processes share the tests of these paths: one a core, and one more where control planes are waited for.

    None besides our own for a single module.
    """
    files = {Path(path.partition("::")[0]).resolve() for path in paths}
    if len(files) == 1 and all(file.is_file() for file in files):
        return 0
    unit = Path(__file__).parent / "unit"
    return cores if files and all(file.is_relative_to(unit) for file in files) else cores + 1


def group_of(nodeid: str) -> str:
    """What runs in one process, for its fixtures' sake: a module, or what is played on one stage of Karpenter in it."""
    module, _, test = nodeid.partition("::")
    stage = test.partition("[")[2].partition("]")[0].partition("-")[0]
    return f"{module} {stage}" if module.startswith(KARPENTER) else module


def in_order(groups: Iterable[str]) -> list[str]:
    """Waiting for Karpenter beside other work, as long as there is some; what is short comes last, to fill the rest."""
    groups = list(groups)
    karpenter = [group for group in groups if group.startswith(KARPENTER)]
    waiting = [group for group in groups if group.startswith(WAITING) and group not in karpenter]
    rest = [group for group in groups if not group.startswith(WAITING)]
    return [group for group in chain(*zip_longest(karpenter, waiting), rest) if group is not None]


def arrange(items: list[pytest.Item]) -> None:
    """Put tests into that order; it stays the same within a group."""
    groups = in_order(dict.fromkeys(group_of(item.nodeid) for item in items))
    place = {group: number for number, group in enumerate(groups)}
    items.sort(key=lambda item: place[group_of(item.nodeid)])


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Sharing(LoadScopeScheduling):  # type: ignore[misc]
    """Deals out groups, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
