"""The ledger is kept equal to what was seen and pruned of what is gone, against an API server in memory.

Virtual time throughout: ten minutes between two lists cost no real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from itertools import pairwise

import pytest

from extender.cluster.state import ClusterState
from extender.kube.api_client import KubeClient
from extender.kube.credentials import Access
from extender.kube.errors import Conflict
from extender.kube.ledger_store import LIMIT_BYTES, LedgerFull, LedgerStore
from extender.kube.listing import list_uids
from extender.kube.transport import Transport
from extender.loops.ledger_keeper import is_half_full, keep_ledger, prune_ledger, write_ledger
from extender.model import Ledger
from extender.telemetry import Metrics
from tests.builders import AN_HOUR_AGO, HALF_AN_HOUR_AGO, NOW, minutes_ago, node, worker
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Fault, Where, answer, stream
from tests.fakes.store import CONFIG_MAPS, NODES

pytestmark = pytest.mark.looptime

NAME = ("default", "warmnode-first-seen")
MINUTE = 60.0


@pytest.fixture
async def server() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer() as running:
        yield running


@pytest.fixture
async def client(server: FakeApiServer) -> AsyncIterator[KubeClient]:
    access = Access(server=server.url, namespace="default")
    connected = KubeClient(Transport(access, user_agent="test"), namespace="default")
    yield connected
    await connected.close()


@pytest.fixture
def store(client: KubeClient) -> LedgerStore:
    return LedgerStore(client, namespace=NAME[0], name=NAME[1])


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def data(server: FakeApiServer) -> dict[str, str]:
    found = [stored.tree for stored in server.store.select(CONFIG_MAPS, NAME[0])]
    return dict(found[0].get("data") or {}) if found else {}


def put(server: FakeApiServer, content: Mapping[str, str]) -> None:
    """Create the ledger ConfigMap, or merge into it, as another replica does."""
    if data(server):
        server.store.patch(CONFIG_MAPS, NAME, {"data": dict(content)})
    else:
        server.store.create(CONFIG_MAPS, NAME[0], {"metadata": {"name": NAME[1]}, "data": dict(content)})


def seconds(time: datetime) -> str:
    return str(int(time.timestamp()))


def writes(server: FakeApiServer) -> list[float]:
    """When writes came in, in seconds of the loop's time."""
    return [each.at for each in server.requests if each.method != "GET"]


def counted(metrics: Metrics, outcome: str) -> float:
    return metrics.registry.get_sample_value("warmnode_ledger_writes_total", {"outcome": outcome}) or 0.0


def then(action: Callable[[], object]) -> Fault:
    """Do something just before a request is served: the moment of a race."""

    async def fault(request: object) -> None:
        action()

    return fault


def seeing(*names: str, known: Ledger | None = None) -> ClusterState:
    """A state in which each of these nodes, an hour old, has had a worker for half an hour; ``known`` is the ledger."""
    state = ClusterState(clock=lambda: NOW)
    state.replace_nodes([node(name) for name in names])
    state.replace_pods([worker(f"on-{name}", node=name) for name in names])
    state.take_ledger(known)
    state.begin()
    return state


@asynccontextmanager
async def running(loop: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(loop)
    try:
        yield
        assert not task.done(), "the loop ended"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# -- the store --------------------------------------------------------------------------------------------------------


async def test_the_first_record_creates_the_ledger_with_labels_to_find_it_by(
    server: FakeApiServer, store: LedgerStore
) -> None:
    assert await store.read() is None
    written = await store.record({"a": AN_HOUR_AGO}, None)
    assert data(server) == {"a": seconds(AN_HOUR_AGO)}
    stored = server.store.get(CONFIG_MAPS, NAME).tree
    assert stored["metadata"]["labels"] == {
        "app.kubernetes.io/name": "warmnode",
        "app.kubernetes.io/component": "ledger",
    }
    assert await store.read() == written


async def test_a_record_never_moves_a_time_later_and_writes_nothing_that_is_known(
    server: FakeApiServer, store: LedgerStore
) -> None:
    first = await store.record({"a": AN_HOUR_AGO, "b": HALF_AN_HOUR_AGO}, None)
    again = await store.record({"a": HALF_AN_HOUR_AGO, "b": AN_HOUR_AGO}, first)
    assert again.first_seen == {"a": AN_HOUR_AGO, "b": AN_HOUR_AGO}
    before = len(writes(server))
    assert await store.record({"a": HALF_AN_HOUR_AGO}, again) == again
    assert len(writes(server)) == before


async def test_two_that_create_at_once_merge(server: FakeApiServer, store: LedgerStore) -> None:
    """The second POST is refused with 409: what is there now is read, and only what it lacks is added."""
    server.fail(Where.WRITE, then(lambda: put(server, {"a": seconds(AN_HOUR_AGO), "c": seconds(AN_HOUR_AGO)})))
    merged = await store.record({"a": HALF_AN_HOUR_AGO, "b": HALF_AN_HOUR_AGO}, None)
    assert data(server) == {"a": seconds(AN_HOUR_AGO), "b": seconds(HALF_AN_HOUR_AGO), "c": seconds(AN_HOUR_AGO)}
    assert merged.first_seen == {"a": AN_HOUR_AGO, "b": HALF_AN_HOUR_AGO, "c": AN_HOUR_AGO}


async def test_a_write_that_others_were_faster_than_is_merged(server: FakeApiServer, store: LedgerStore) -> None:
    base = await store.record({"a": HALF_AN_HOUR_AGO}, None)
    server.fail(Where.WRITE, then(lambda: put(server, {"b": seconds(AN_HOUR_AGO)})))
    await store.record({"b": HALF_AN_HOUR_AGO, "c": HALF_AN_HOUR_AGO}, base)
    assert data(server) == {
        "a": seconds(HALF_AN_HOUR_AGO),
        "b": seconds(AN_HOUR_AGO),
        "c": seconds(HALF_AN_HOUR_AGO),
    }


async def test_a_ledger_that_changes_all_the_time_is_a_conflict_and_nothing_is_lost(
    server: FakeApiServer, store: LedgerStore
) -> None:
    base = await store.record({"a": HALF_AN_HOUR_AGO}, None)
    moved = iter(range(100))
    faults = [then(lambda: put(server, {"x": seconds(minutes_ago(next(moved)))})) for _ in range(3)]
    server.fail(Where.WRITE, *faults)
    with pytest.raises(Conflict):
        await store.record({"b": HALF_AN_HOUR_AGO}, base)
    assert set(data(server)) == {"a", "x"}


async def test_a_ledger_that_is_deleted_meanwhile_is_created_again(server: FakeApiServer, store: LedgerStore) -> None:
    base = await store.record({"a": HALF_AN_HOUR_AGO}, None)
    server.store.delete(CONFIG_MAPS, NAME, {})
    await store.record({"a": HALF_AN_HOUR_AGO, "b": HALF_AN_HOUR_AGO}, base)
    assert set(data(server)) >= {"b"}


async def test_keys_that_make_no_sense_are_never_overwritten(server: FakeApiServer, store: LedgerStore) -> None:
    put(server, {"a": "soon", "b": "-5"})
    read = await store.read()
    assert read is not None
    assert read.ignored == ("a", "b")
    await store.record({"a": HALF_AN_HOUR_AGO, "c": HALF_AN_HOUR_AGO}, read)
    assert data(server) == {"a": "soon", "b": "-5", "c": seconds(HALF_AN_HOUR_AGO)}


async def test_what_does_not_fit_into_a_config_map_is_refused_before_it_is_sent(
    server: FakeApiServer, store: LedgerStore
) -> None:
    put(server, {f"{number:036}": seconds(AN_HOUR_AGO) for number in range(LIMIT_BYTES // 46)})
    base = await store.read()
    assert base is not None
    assert LIMIT_BYTES - 46 < base.size_bytes <= LIMIT_BYTES
    before = len(writes(server))
    with pytest.raises(LedgerFull, match="1 nodes do not fit into the ConfigMap warmnode-first-seen"):
        await store.record({f"{'x':036}": AN_HOUR_AGO}, base)
    assert len(writes(server)) == before
    earlier = await store.record({f"{0:036}": minutes_ago(90)}, base)  # a change of a known one still fits
    assert earlier.first_seen[f"{0:036}"] == minutes_ago(90)


# -- keeping ----------------------------------------------------------------------------------------------------------


async def test_what_the_ledger_lacks_is_written_in_one_batch(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    state = seeing("a", "b", "c")
    async with running(keep_ledger(state, store, metrics)):
        await asyncio.sleep(1.9)
        assert data(server) == {}
        await asyncio.sleep(2)
        assert data(server) == {f"uid-of-{name}": seconds(AN_HOUR_AGO) for name in "abc"}
        await asyncio.sleep(10 * MINUTE)
    assert len([each for each in server.requests if each.method == "POST"]) == 1
    assert counted(metrics, "written") == 1
    assert state.ages.unrecorded() == {}


async def test_writes_are_at_least_two_seconds_apart(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    """A burst of new nodes is a few patches and not one for each."""
    state = seeing("start")
    async with running(keep_ledger(state, store, metrics)):
        for number in range(100):
            state.upsert_node(node(f"n{number}"))
            state.upsert_pod(worker(f"on-n{number}", node=f"n{number}"))
            await asyncio.sleep(0.1)
        await asyncio.sleep(4)
    assert len(data(server)) == 101
    times = writes(server)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert min(pauses) >= 2, pauses
    assert len(times) <= 7


async def test_nothing_is_written_before_the_state_is_complete(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    """What is seen before the ledger was read might be recorded there with an earlier time."""
    state = ClusterState(clock=lambda: NOW)
    state.replace_nodes([node("a")])
    state.replace_pods([worker(node="a")])
    async with running(keep_ledger(state, store, metrics)):
        await asyncio.sleep(MINUTE)
        assert writes(server) == []
        state.take_ledger(None)
        state.begin()
        await asyncio.sleep(3)
        assert set(data(server)) == {"uid-of-a"}


async def test_a_conflict_is_tried_again_two_seconds_later(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    put(server, {"x": seconds(AN_HOUR_AGO)})
    read = await store.read()
    moved = iter(range(100))
    server.fail(Where.WRITE, *[then(lambda: put(server, {"x": seconds(minutes_ago(next(moved)))})) for _ in range(3)])
    state = seeing("a", known=read)
    async with running(keep_ledger(state, store, metrics)):
        await asyncio.sleep(3)
        assert (counted(metrics, "conflict"), "uid-of-a" in data(server)) == (1, False)
        await asyncio.sleep(2)
        assert "uid-of-a" in data(server)
    assert counted(metrics, "written") == 1


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (answer(403, "Forbidden"), "forbidden"),
        (answer(500, "InternalError"), "failed"),
        (answer(422, "Invalid"), "failed"),
    ],
)
async def test_a_refusal_is_told_once_tried_each_half_minute_and_its_end_is_told(
    server: FakeApiServer,
    store: LedgerStore,
    metrics: Metrics,
    caplog: pytest.LogCaptureFixture,
    fault: Fault,
    outcome: str,
) -> None:
    """Ages stay in memory meanwhile, and the webhook never notices."""
    caplog.set_level("INFO")
    server.fail(Where.WRITE, *[fault] * 4)
    state = seeing("a")
    async with running(keep_ledger(state, store, metrics)):
        await asyncio.sleep(3 * 32 + 3)
        assert counted(metrics, outcome) == 4
        assert data(server) == {}
        await asyncio.sleep(32)
        assert set(data(server)) == {"uid-of-a"}
        await asyncio.sleep(10)
    told = [record.getMessage() for record in caplog.records if record.name == "warmnode.ledger"]
    assert told == ["the ledger is not written; ages stay in memory", "the ledger is written again"]
    pauses = [later - earlier for earlier, later in pairwise(writes(server))]
    assert min(pauses) >= 30, pauses


async def test_an_answer_that_is_no_config_map_is_a_failure_and_ends_nothing(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    """A proxy in between may say anything with 200."""
    server.fail(Where.WRITE, stream(b"<html>"))
    state = seeing("a")
    async with running(keep_ledger(state, store, metrics)):
        await asyncio.sleep(3)
        assert counted(metrics, "failed") == 1
        await asyncio.sleep(32)
        assert set(data(server)) == {"uid-of-a"}


async def test_what_fits_into_a_full_ledger_is_written_the_earliest_first(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    """They come first in the order of nodes, so to lose their age would change most. The rest stays in memory."""
    seen = {f"{letter * 36}": minutes_ago(minutes) for letter, minutes in (("a", 10), ("b", 30), ("c", 20))}
    nearly = 46 * 2 + 5
    put(server, {"f" * (LIMIT_BYTES - nearly - 10): seconds(AN_HOUR_AGO)})
    base = await store.read()
    assert base is not None
    assert LIMIT_BYTES - base.size_bytes == nearly
    with pytest.raises(LedgerFull, match="1 nodes do not fit") as caught:
        await store.record(seen, base)
    assert caught.value.ledger is not None
    assert set(data(server)) - set(base.first_seen) == {"b" * 36, "c" * 36}
    assert set(caught.value.ledger.first_seen) == set(data(server))


async def test_a_ledger_that_became_full_is_known_as_it_is(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    """So that the next look asks for what is left only, and sends nothing."""
    put(server, {"f" * (LIMIT_BYTES - 30): seconds(AN_HOUR_AGO)})
    state = seeing("a", "b", known=await store.read())
    assert await write_ledger(state, store, metrics) == "1 nodes do not fit into the ConfigMap warmnode-first-seen"
    assert len(state.ages.unrecorded()) == 1
    before = len(writes(server))
    assert await write_ledger(state, store, metrics) is not None
    assert len(writes(server)) == before


async def test_a_full_ledger_is_a_problem_and_no_request(
    server: FakeApiServer, store: LedgerStore, metrics: Metrics
) -> None:
    full = Ledger(first_seen={}, resource_version="1", size_bytes=LIMIT_BYTES - 10)
    problem = await write_ledger(seeing("a", known=full), store, metrics)
    assert problem == "1 nodes do not fit into the ConfigMap warmnode-first-seen"
    assert counted(metrics, "full") == 1
    assert writes(server) == []


async def test_a_ledger_past_four_fifths_is_warned_of(
    store: LedgerStore, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    base = await store.record({f"{number:036}": AN_HOUR_AGO for number in range(18_500)}, None)
    assert base.size_bytes > 0.8 * LIMIT_BYTES - 3000
    assert await write_ledger(seeing("a", known=base), store, metrics) is None
    assert "the ledger is nearly full" in caplog.messages


# -- pruning ----------------------------------------------------------------------------------------------------------


GONE, STAYS = "uid-of-gone", "uid-of-stays"


class Pruning:
    """A loop over a ledger with one node that is gone and one that is there; ``allowed`` is what `may_prune` says."""

    def __init__(self, server: FakeApiServer, client: KubeClient, store: LedgerStore, metrics: Metrics) -> None:
        self.server = server
        self.allowed = True
        self.lists: list[Set[str]] = []
        self.state = seeing("stays")
        self._client = client
        self._store = store
        self._metrics = metrics

    async def begin(self) -> None:
        put(self.server, {GONE: seconds(AN_HOUR_AGO), STAYS: seconds(AN_HOUR_AGO), "note": "by hand"})
        self.add_node("stays")
        self.state.take_ledger(await self._store.read())

    def add_node(self, name: str) -> None:
        self.server.store.create(NODES, "", {"metadata": {"name": name, "uid": f"uid-of-{name}"}})

    def remove_node(self, name: str) -> None:
        self.server.store.remove(NODES, ("", name))

    async def run(self) -> None:
        async def list_node_uids() -> Set[str]:
            self.lists.append(await list_uids(self._client, "/api/v1/nodes"))
            return self.lists[-1]

        async def may_prune() -> bool:
            return self.allowed

        await prune_ledger(self.state, self._store, self._metrics, list_node_uids=list_node_uids, may_prune=may_prune)


@pytest.fixture
async def pruning(server: FakeApiServer, client: KubeClient, store: LedgerStore, metrics: Metrics) -> Pruning:
    made = Pruning(server, client, store, metrics)
    await made.begin()
    return made


async def test_a_node_absent_from_two_lists_ten_minutes_apart_is_pruned(pruning: Pruning, metrics: Metrics) -> None:
    async with running(pruning.run()):
        await asyncio.sleep(19 * MINUTE)
        assert GONE in data(pruning.server)
        await asyncio.sleep(2 * MINUTE)
        assert data(pruning.server) == {STAYS: seconds(AN_HOUR_AGO), "note": "by hand"}
    assert len(pruning.lists) == 2
    assert metrics.registry.get_sample_value("warmnode_ledger_pruned_total") == 1
    assert pruning.state.ages.ledger is not None
    assert set(pruning.state.ages.ledger.first_seen) == {STAYS}


async def test_a_node_that_appears_between_the_lists_is_kept(pruning: Pruning) -> None:
    """A list that lacked it, from an API server that was behind, for instance, is not proof enough."""
    async with running(pruning.run()):
        await asyncio.sleep(15 * MINUTE)
        pruning.add_node("gone")
        await asyncio.sleep(60 * MINUTE)
    assert GONE in data(pruning.server)


async def test_a_node_that_goes_between_the_lists_is_kept_until_two_lists_lack_it(pruning: Pruning) -> None:
    async with running(pruning.run()):
        await asyncio.sleep(15 * MINUTE)
        pruning.remove_node("stays")
        await asyncio.sleep(6 * MINUTE)
        assert set(data(pruning.server)) == {STAYS, "note"}
        await asyncio.sleep(20 * MINUTE)
        assert set(data(pruning.server)) == {"note"}


async def test_an_entry_that_is_written_between_the_lists_is_kept(pruning: Pruning) -> None:
    """It was not absent from both lists, for nobody looked for it in the first one."""
    async with running(pruning.run()):
        await asyncio.sleep(15 * MINUTE)
        put(pruning.server, {"uid-of-young": seconds(HALF_AN_HOUR_AGO)})
        await asyncio.sleep(6 * MINUTE)
    assert set(data(pruning.server)) == {STAYS, "uid-of-young", "note"}


async def test_a_conflict_while_pruning_keeps_everything(pruning: Pruning, metrics: Metrics) -> None:
    """The ledger changed under us: decide again, from new lists."""
    pruning.server.fail(Where.WRITE, then(lambda: put(pruning.server, {"uid-of-young": seconds(HALF_AN_HOUR_AGO)})))
    async with running(pruning.run()):
        await asyncio.sleep(21 * MINUTE)
        assert counted(metrics, "conflict") == 1
        assert set(data(pruning.server)) == {GONE, STAYS, "uid-of-young", "note"}


async def test_nothing_is_pruned_while_it_is_not_ours_to_do(pruning: Pruning) -> None:
    """A reaper leads, or the ledger is not half full."""
    pruning.allowed = False
    async with running(pruning.run()):
        await asyncio.sleep(60 * MINUTE)
    assert GONE in data(pruning.server)
    assert pruning.lists == []


async def test_nothing_is_pruned_when_it_ceases_to_be_ours_between_the_lists(pruning: Pruning) -> None:
    async with running(pruning.run()):
        await asyncio.sleep(15 * MINUTE)
        pruning.allowed = False
        await asyncio.sleep(60 * MINUTE)
    assert GONE in data(pruning.server)


@pytest.mark.parametrize("turn", [0, 1])
async def test_a_list_that_fails_prunes_nothing(pruning: Pruning, turn: int) -> None:
    """An unknown list is not an empty one."""
    async with running(pruning.run()):
        await asyncio.sleep((5 + 10 * turn) * MINUTE)
        pruning.server.fail(Where.LIST, answer(500, "InternalError"))
        await asyncio.sleep(16 * MINUTE - 10 * turn * MINUTE)
        assert GONE in data(pruning.server)
        await asyncio.sleep(30 * MINUTE)
        assert GONE not in data(pruning.server)


async def test_a_ledger_that_disappears_between_the_lists_is_no_error(pruning: Pruning) -> None:
    async with running(pruning.run()):
        await asyncio.sleep(15 * MINUTE)
        pruning.server.store.delete(CONFIG_MAPS, NAME, {})
        await asyncio.sleep(30 * MINUTE)
    assert data(pruning.server) == {}


def test_a_ledger_counts_as_half_full_by_its_bytes() -> None:
    half = LIMIT_BYTES // 2
    for size, expected in ((0, False), (half, False), (half + 1, True), (LIMIT_BYTES, True)):
        assert is_half_full(seeing(known=Ledger(first_seen={}, size_bytes=size))) is expected
    assert not is_half_full(ClusterState(clock=lambda: NOW))
