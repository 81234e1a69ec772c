"""The ledger's merge: two replicas' first-seen times become one, the earliest for each node.

Owns what is merged and what a ledger lacks. `kube.ledger_store` reads and writes it, `loops.ledger_keeper` says when.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime


def merge_earliest(*sources: Mapping[str, datetime]) -> dict[str, datetime]:
    """Merge first-seen times by UID, the earliest wins: commutative, associative and idempotent."""
    merged: dict[str, datetime] = {}
    for source in sources:
        for uid, seen in source.items():
            known = merged.get(uid)
            if known is None or seen < known:
                merged[uid] = seen
    return merged


def missing_from(recorded: Mapping[str, datetime], known: Mapping[str, datetime]) -> dict[str, datetime]:
    """Select what the ledger does not hold yet: UIDs that it lacks, or has with a later whole second."""
    return {
        uid: seen
        for uid, seen in known.items()
        if uid not in recorded or int(seen.timestamp()) < int(recorded[uid].timestamp())
    }
