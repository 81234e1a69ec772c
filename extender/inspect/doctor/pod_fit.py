"""What a pod needs of a node, as far as its spec says it, and whether one would fit where another stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from extender.policy.resources import Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What kube-scheduler holds against nodes.

    ``tolerations``, ``affinity`` and ``spread`` are as they stand, empty where there is none.
    """

    requests: Resources = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: frozenset[bytes] = frozenset()
    affinity: bytes = b""
    spread: bytes = b""


def fits_in_place_of(waiting: Needs, standing: Needs) -> bool:
    """Say whether a pod would fit on a node with the room that another one on it gives back.

    It asks for 1. no label that the other does not ask for; 2. no more of anything; 3. the same affinity and spread, or
    none; and 4. it tolerates what the other does. False where that cannot be told: it may fit all the same.
    """
    return (
        waiting.node_selector.items() <= standing.node_selector.items()
        and all(amount <= standing.requests.get(name, Decimal(0)) for name, amount in waiting.requests.items())
        and waiting.affinity in (b"", standing.affinity)
        and waiting.spread in (b"", standing.spread)
        and waiting.tolerations >= standing.tolerations
    )
