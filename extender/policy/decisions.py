"""What is remembered of a decision: one value a kind, as it is kept, sent to `warmnode explain` and written to the log.

Owns these values and their JSON form, which docs/explain.md describes. Decides nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Struct

ZonedTime: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""A time without a zone is not read: it compares with none that has one."""


class RankedNode(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A node that a placement could go to. ``rank`` counts from 1 over all nodes that are not leaving.

    ``key_uses`` is how many workers with the key were placed there, each halved for every hour since. ``in_window``:
    the key could choose it; both say nothing where the worker has no key.
    """

    node: str
    rank: int
    key_uses: float = 0
    in_window: bool = False


class Remembered(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What every decision has: when, and about which pod. ``pool`` None: of no pool. ``uid`` empty: nobody said."""

    at: ZonedTime
    namespace: str
    pod: str
    uid: str = ""
    pool: str | None = None


class PlacementDecision(Remembered, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="placement"):
    """An answer to a scheduler: among so many ``candidates``, the ``best`` first, nine at most.

    ``node`` is where the worker was bound then, ``bound_after_seconds`` later as it was seen here; None: not yet, or it
    was not seen. ``shadow``: this is what would have been answered, and nothing was.
    """

    candidates: int
    best: tuple[RankedNode, ...] = ()
    key: str | None = None
    shadow: bool = False
    node: str | None = None
    bound_after_seconds: float | None = None


class KeptPlacement(Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A `PlacementDecision` as it is made and kept, a row of flat values: it is made while a scheduler waits.

    ``nodes`` are the best, with their ``ranks``; the key could choose those up to rank ``reach``. ``key_uses`` is empty
    where the worker has no key.
    """

    at: ZonedTime
    namespace: str
    pod: str
    uid: str
    pool: str
    key: str | None
    shadow: bool
    candidates: int
    nodes: tuple[str, ...]
    ranks: tuple[int, ...]
    key_uses: tuple[float, ...] = ()
    reach: int = 0
    node: str | None = None
    bound_after_seconds: float | None = None

    def decision(self) -> PlacementDecision:
        """Give it as it is sent and written."""
        uses = self.key_uses or (0,) * len(self.nodes)
        return PlacementDecision(
            at=self.at,
            namespace=self.namespace,
            pod=self.pod,
            uid=self.uid,
            pool=self.pool,
            key=self.key,
            shadow=self.shadow,
            candidates=self.candidates,
            best=tuple(
                RankedNode(node=node, rank=rank, key_uses=of_key or 0, in_window=rank <= self.reach)
                for node, rank, of_key in zip(self.nodes, self.ranks, uses, strict=True)
            ),
            node=self.node,
            bound_after_seconds=self.bound_after_seconds,
        )


class EvictionDecision(Remembered, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="eviction"):
    """A worker that was to be evicted: what came of it, ``evicted`` or why it stays."""

    node: str | None
    outcome: str
    idle_since: ZonedTime | None = None


class ClaimDecision(Remembered, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="claim"):
    """A worker that was handed out."""

    node: str | None
    user: str
    claimant: str
    expires: ZonedTime


class PreemptionDecision(Remembered, frozen=True, kw_only=True, rename="camel", omit_defaults=True, tag="preemption"):
    """An answer to a scheduler whose pod could make room for itself on so many ``candidates``: the node, or a veto."""

    candidates: int
    verdict: str
    node: str | None = None


Decision: TypeAlias = PlacementDecision | EvictionDecision | ClaimDecision | PreemptionDecision
Kept: TypeAlias = KeptPlacement | EvictionDecision | ClaimDecision | PreemptionDecision

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Decision] = msgspec.json.Decoder(Decision)
_placement_decoder = msgspec.json.Decoder(KeptPlacement)


def encode_decision(decision: Decision | Kept) -> bytes:
    """Write one, on one line. The line takes no more memory than it is long: `encode` alone leaves room at its end."""
    written = bytearray()
    _encoder.encode_into(decision, written)
    return bytes(written)


def decode_decision(line: bytes) -> Decision:
    """Read one. Raises `msgspec.DecodeError`: it is none, or of a version that has other fields."""
    return _decoder.decode(line)


def decode_kept_placement(line: bytes) -> KeptPlacement | None:
    """Read a kept placement, None where the line is another decision."""
    return _placement_decoder.decode(line) if line.startswith(b"[") else None


def is_about_pod(decision: Decision, namespace: str, name: str) -> bool:
    """Say whether it is about a pod. An empty ``namespace`` is any."""
    return decision.pod == name and namespace in ("", decision.namespace)


def is_about_node(decision: Decision, node: str) -> bool:
    """Say whether it chose a node, or took something from it."""
    if isinstance(decision, PlacementDecision):
        return node == (decision.node or (decision.best[0].node if decision.best else None))
    return decision.node == node
