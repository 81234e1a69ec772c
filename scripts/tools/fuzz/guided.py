"""``python -m scripts.tools.fuzz.guided TARGET ARGUMENT...``: one target under libFuzzer, whose arguments follow.

A process of its own, for libFuzzer ends the process that it runs in. `command` starts it.
"""

from __future__ import annotations

import logging
import sys
from random import Random

import atheris

from scripts.tools.fuzz.mutations import mutate, words_of

AS_BYTES = 0.25
"""So many inputs are changed as bytes, by libFuzzer itself. The others are JSON still."""


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    logging.disable()
    with atheris.instrument_imports(include=["extender"]):
        from scripts.tools.fuzz.targets import TARGETS, inputs_of
    words = words_of(each.read_bytes() for each in inputs_of(name))

    def another(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        made = None if random.random() < AS_BYTES else mutate(data, words, random)
        if made is None or len(made) > longest:
            made = atheris.Mutate(data, longest)
        return made

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name](), custom_mutator=another)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
