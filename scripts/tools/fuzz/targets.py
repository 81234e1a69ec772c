"""What is fuzzed with bytes: by name, how a check is made that raises where something does not hold, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from scripts.tools.fuzz.bodies import Replicas
from scripts.tools.fuzz.events import follow

TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "prioritize": lambda: Replicas().prioritize,
    "preempt": lambda: Replicas().preempt,
    "watch": lambda: follow,
}
"""A check takes an input; any exception is a finding."""

CORPUS = Path(__file__).parents[3] / "tests" / "corpus"
"""A folder for each target: inputs to begin with, and what was found. tests/unit/test_fuzz_corpus.py replays them."""


def inputs_of(target: str) -> list[Path]:
    """Give the committed inputs of a target."""
    return sorted((CORPUS / target).iterdir())
