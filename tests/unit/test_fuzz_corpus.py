"""Inputs of the fuzzer, and what it found once: each holds what is promised, on every run of the tests."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.tools.fuzz.mutations import mutate, words_of
from scripts.tools.fuzz.targets import TARGETS, inputs_of

WORDS = words_of(each.read_bytes() for target in TARGETS for each in inputs_of(target))
EVENT = b'pods {"type":"ADDED","object":{"metadata":{"name":"w","labels":{"a":null}},"spec":[1,{"b":2.5}]}}'


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_promised_holds_for_every_input(target: str) -> None:
    """The first that fails is named."""
    check = TARGETS[target]()
    for path in inputs_of(target):
        try:
            check(path.read_bytes())
        except Exception as error:
            error.add_note(f"with {path}")
            raise


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_promised_holds_for_changed_inputs(target: str) -> None:
    """A thousand of them, the same each time: what a fuzzer does without looking where it gets."""
    check, inputs, random = TARGETS[target](), [each.read_bytes() for each in inputs_of(target)], Random(7)
    for _ in range(1000):
        data = random.choice(inputs)
        for _ in range(random.randrange(1, 4)):
            data = mutate(data, WORDS, random) or data
        try:
            check(data)
        except Exception as error:
            error.add_note(f"with {data!r}")
            raise


@given(st.integers(0, 2**32))
def test_a_changed_event_is_json_still_and_its_seed_decides(seed: int) -> None:
    """Else all inputs would be refused at their first byte, and what was found could not be found again."""
    made = mutate(EVENT, WORDS, Random(seed))
    assert made is not None
    assert made == mutate(EVENT, WORDS, Random(seed))
    head, brace, rest = made.partition(b"{")
    assert head == b"pods "
    json.loads(brace + rest)


@pytest.mark.parametrize("data", [b"", b"\xff", b"pods", b"[1", b"7", b"[]"])
def test_what_has_nothing_to_change_is_left_to_others(data: bytes) -> None:
    assert mutate(data, WORDS, Random(1)) is None


def test_words_are_the_keys_and_strings_of_all_lines() -> None:
    assert words_of([b'nodes {"a": ["b", 1]}\npods {"c": {"d": "b"}}\n', b"no json"]) == ["a", "b", "c", "d"]
