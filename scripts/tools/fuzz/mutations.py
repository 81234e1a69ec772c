"""Makes inputs of others: changes one thing in a tree of JSON, with words that the committed inputs have.

Bytes that are changed at random are no JSON as a rule, and are refused at the first byte that is wrong. Pure: the same
seed gives the same change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import Any, TypeAlias

Json: TypeAlias = Any
Place: TypeAlias = tuple[Any, Any]
"""A list or an object, and an index or a key of it."""

_VALUES: Sequence[Json] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 1.5, 1e300, -0.0),
    *("", " ", "\x00", "\u202e", "\ud83d\ude00", "\u00e9", "x" * 300, "0", "-1", "1h", "100%", "1e3", "True", "null"),
    *([], {}, [None], {"": None}, [[]], [{}]),
)


def words_of(inputs: Iterable[bytes]) -> list[str]:
    """Give every key and every string in them, each once."""
    trees = [tree for each in inputs for line in each.split(b"\n") if (tree := _tree(line)[1]) is not None]
    return sorted({word for tree in trees for word in _words(tree)})


def mutate(data: bytes, words: Sequence[str], random: Random) -> bytes | None:
    """Change one line of an input: mostly a value in it, now and then its place. None where it is no JSON."""
    lines = data.split(b"\n")
    number = random.randrange(len(lines))
    if len(lines) > 1 and random.random() < 0.2:
        line = lines.pop(number)
        for _ in range(random.randrange(3)):  # gone, elsewhere, or twice
            lines.insert(random.randrange(len(lines) + 1), line)
        return b"\n".join(lines)
    head, tree = _tree(lines[number])
    places = list(_places(tree))
    if not places:
        return None
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        values = [parent[key] for parent, key in places if _is_in(parent, key)]
        _change(random.choice(places), values, words, random)
    text = json.dumps(tree, ensure_ascii=random.random() < 0.5, separators=(",", ":"))
    lines[number] = head + text.encode(errors="surrogatepass")
    return b"\n".join(lines)


def _change(place: Place, values: Sequence[Json], words: Sequence[str], random: Random) -> None:
    parent, key = place
    if not _is_in(parent, key):
        return  # an earlier change took it away
    copied = json.loads(json.dumps(random.choice(values)))
    match random.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            value = parent.pop(key)
            parent[random.choice((key.lower(), key.upper(), key.swapcase(), random.choice(words)))] = value
        case 1 | 2:
            parent[key] = copied
        case 3:
            parent[key] = random.choice(_VALUES)
        case 4 if isinstance(parent, list):
            parent.insert(key, copied)
        case 4 if isinstance(parent, dict):
            parent[random.choice(words)] = copied
        case _:
            parent[key] = random.choice(words)


def _is_in(parent: Json, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _tree(line: bytes) -> tuple[bytes, Json]:
    """What stands before the first brace, and the JSON from there on; None where it is none."""
    begin = max(0, line.find(b"{"))
    try:
        return line[:begin], json.loads(line[begin:])
    except (ValueError, RecursionError):
        return line, None


def _places(tree: Json) -> Iterator[Place]:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _words(tree: Json) -> Iterator[str]:
    for parent, key in _places(tree):
        yield from (each for each in (key, parent[key]) if isinstance(each, str))
