"""`warmnode` as it would be if a key chose by a hash: what decision 32 measured in the model, run for real.

Of the nodes of the working set on which the worker fits the one with the highest hash of key and node comes first
(rendezvous hashing, bounded by what nodes hold). A function is replaced from outside: warmnode knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from hashlib import blake2b
from itertools import islice

from extender.cli import main
from extender.policy import scoring
from extender.policy.affinity import Affinity
from extender.policy.scoring import Ranking


def by_hash(candidates: Container[str], ranking: Ranking, affinity: Affinity) -> Iterator[str]:
    """Give the candidates of the set, by the hash of the key and their name. Stands in for `scoring.key_first`."""

    def weight(name: str) -> bytes:
        return blake2b(f"{affinity.key} {name}".encode()).digest()

    within = islice(ranking, min(affinity.reach, ranking.staying))
    return iter(sorted((name for name in within if name in candidates), key=weight, reverse=True))


if __name__ == "__main__":
    scoring.key_first = by_hash
    raise SystemExit(main())
