"""Keeps the ledger equal to what was seen: writes what it lacks, and prunes nodes that are gone.

Any role writes; the writes are batched, at most one every two seconds. The webhook never waits for it: a ledger that
cannot be written is a metric and a log line, and ages stay in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Set
from datetime import timedelta

from extender.cluster.state import ClusterState
from extender.kube.errors import Conflict, Forbidden, KubeError
from extender.kube.ledger_store import LIMIT_BYTES, LedgerFull, LedgerStore
from extender.logs import fields
from extender.telemetry import Metrics

log = logging.getLogger("warmnode.ledger")

WRITE_INTERVAL = timedelta(seconds=2)
PRUNE_INTERVAL = timedelta(minutes=10)
PROBLEM_PAUSE = timedelta(seconds=30)
WARN_SHARE = 0.8
PRUNE_SHARE = 0.5


async def keep_ledger(state: ClusterState, store: LedgerStore, metrics: Metrics) -> None:
    """Write what the ledger lacks, every two seconds where there is something. Ends only by cancellation."""
    told: str | None = None
    while True:
        await asyncio.sleep(WRITE_INTERVAL.total_seconds())
        if not state.synced:
            continue
        problem = await write_ledger(state, store, metrics)
        if problem is not None and problem != told:
            log.warning("the ledger is not written; ages stay in memory", extra=fields(problem=problem))
        elif problem is None and told is not None:
            log.info("the ledger is written again")
        told = problem
        if problem is not None:
            await asyncio.sleep(PROBLEM_PAUSE.total_seconds())


async def write_ledger(state: ClusterState, store: LedgerStore, metrics: Metrics) -> str | None:
    """Write once what is missing now; None when the ledger holds everything, else what stands in the way."""
    missing = state.ages.unrecorded()
    if not missing:
        return None
    try:
        ledger = await store.record(missing, state.ages.ledger)
    except Conflict:
        metrics.ledger_writes.labels("conflict").inc()
        return None
    except LedgerFull as error:
        metrics.ledger_writes.labels("full").inc()
        if error.ledger is not None:
            state.take_ledger(error.ledger)
        return str(error)
    except Forbidden as error:
        metrics.ledger_writes.labels("forbidden").inc()
        return str(error)
    except KubeError as error:
        metrics.ledger_writes.labels("failed").inc()
        return str(error)
    metrics.ledger_writes.labels("written").inc()
    state.take_ledger(ledger)
    log.debug("ledger written", extra=fields(nodes=len(missing), entries=len(ledger.first_seen)))
    if ledger.size_bytes > WARN_SHARE * LIMIT_BYTES:
        log.warning("the ledger is nearly full", extra=fields(bytes=ledger.size_bytes, limit=LIMIT_BYTES))
    return None


async def prune_ledger(
    state: ClusterState,
    store: LedgerStore,
    metrics: Metrics,
    *,
    list_node_uids: Callable[[], Awaitable[Set[str]]],
    may_prune: Callable[[], Awaitable[bool]],
) -> None:
    """Prune UIDs that two complete lists of nodes, ten minutes apart, did not have. Ends only by cancellation.

    ``may_prune`` is asked before each round and before the write. What appears in the ledger between the two lists
    is not pruned: it was not absent from both.
    """
    while True:
        await asyncio.sleep(PRUNE_INTERVAL.total_seconds())
        try:
            if state.ages.ledger is None or not await may_prune():
                continue
            absent = state.ages.ledger.first_seen.keys() - await list_node_uids()
            if not absent:
                continue
            await asyncio.sleep(PRUNE_INTERVAL.total_seconds())
            gone = absent - await list_node_uids()
            ledger = await store.read()
            if ledger is None or not await may_prune():
                continue
            gone &= ledger.first_seen.keys()
            if gone:
                state.take_ledger(await store.prune(gone, ledger))
                metrics.ledger_pruned.inc(len(gone))
                log.info("ledger pruned", extra=fields(nodes=len(gone)))
        except Conflict:
            metrics.ledger_writes.labels("conflict").inc()
        except KubeError as error:
            log.warning("the ledger was not pruned", extra=fields(problem=str(error)))


def is_half_full(state: ClusterState) -> bool:
    """True where pruning cannot wait for a reaper: the ledger uses half of what a ConfigMap holds."""
    return state.ages.ledger is not None and state.ages.ledger.size_bytes > PRUNE_SHARE * LIMIT_BYTES
