"""The reflector keeps a sink equal to a collection, whatever the API server and the network do.

Virtual time throughout: a pause of half a minute or a silence of 75 s costs no real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extender.kube.api_client import KubeClient
from extender.kube.codec import Codec
from extender.kube.credentials import Access
from extender.kube.errors import Forbidden, Gone, KubeError, NotFound, Throttled, Unavailable
from extender.kube.transport import Transport
from extender.kube.watch import ListWatchClient, Reflector, RelistReason, UndecodableObject
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.faults import Then, Where, answer, reset, silence, slow, stream, truncated
from tests.fakes.store import CONFIG_MAPS, NODE_CLAIMS, PODS

pytestmark = pytest.mark.looptime

PODS_PATH = "/api/v1/pods"


class Meta(msgspec.Struct, rename="camel"):
    name: str
    resource_version: str
    labels: dict[str, str] | None = None


class Thing(msgspec.Struct):
    metadata: Meta


Version = tuple[str, str]


def trim(thing: Thing) -> Version:
    """(name, resourceVersion); a label ``broken`` makes an object that cannot be reduced."""
    if "broken" in (thing.metadata.labels or {}):
        raise ValueError("broken")
    return thing.metadata.name, thing.metadata.resource_version


class Recorder:
    """A sink that holds the collection, and an observer that remembers what it was told."""

    def __init__(self) -> None:
        self.items: dict[str, str] = {}
        self.replaced: list[int] = []
        self.reasons: list[RelistReason] = []
        self.failures: list[KubeError] = []
        self.problems: list[str | None] = []
        """What ``of`` says of itself at each failure."""
        self.of: Reflector[Thing, Version] | None = None
        self.skipped: list[str] = []
        self.events = 0

    def replace(self, items: list[Version]) -> None:
        self.items = dict(items)
        self.replaced.append(len(items))

    def upsert(self, item: Version) -> None:
        self.items.update([item])

    def delete(self, item: Version) -> None:
        self.items.pop(item[0], None)

    def listed(self, name: str, count: int, seconds: float) -> None:
        assert count == len(self.items)

    def relisted(self, name: str, reason: RelistReason) -> None:
        self.reasons.append(reason)

    def watch_failed(self, name: str, error: KubeError) -> None:
        self.failures.append(error)
        self.problems.append(self.of.problem if self.of is not None else None)

    def undecodable(self, name: str, error: UndecodableObject) -> None:
        self.skipped.append(error.key)

    def event(self, name: str) -> None:
        self.events += 1


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
def seen() -> Recorder:
    return Recorder()


def reflector(
    client: ListWatchClient, seen: Recorder, path: str = PODS_PATH, **options: Any
) -> Reflector[Thing, Version]:
    jitter = Random(7)  # noqa: S311
    return Reflector(
        client, path=path, struct=Thing, trim=trim, sink=seen, name="things", random=jitter, observer=seen, **options
    )


@asynccontextmanager
async def running(subject: Reflector[Thing, Version]) -> AsyncIterator[asyncio.Task[None]]:
    """The reflector at work, ended by cancellation."""
    task: asyncio.Task[None] = asyncio.create_task(subject.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], object], within: float = 600.0) -> None:
    """Wait, in virtual seconds, until the condition holds."""
    async with asyncio.timeout(within):
        pause = 0.001
        while not condition():
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)


def problem_of(subject: Reflector[Thing, Version]) -> str:
    """Why the collection is missing, empty where it is not."""
    assert subject.missing == (subject.problem is not None)
    return subject.problem or ""


def create(server: FakeApiServer, name: str, **labels: str) -> None:
    server.store.create(PODS, "default", {"metadata": {"name": name, "labels": labels}})


def change(server: FakeApiServer, name: str, **labels: str | None) -> None:
    server.store.patch(PODS, ("default", name), {"metadata": {"labels": labels}})


def in_store(server: FakeApiServer) -> dict[str, str]:
    metas = [stored.tree["metadata"] for stored in server.store.select(PODS, "")]
    return {meta["name"]: meta["resourceVersion"] for meta in metas}


# --- list ---------------------------------------------------------------------------------------------------------


async def test_list_is_paged_consistent_and_replaces_in_one_step(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    for index in range(1201):
        create(server, f"pod-{index:04}")
    async with running(reflector(client, seen, label_selector="!broken", field_selector="status.phase!=Failed")):
        await until(lambda: server.watching)
    pages = [each.params for each in server.requests if "limit" in each.params]
    assert [page["limit"] for page in pages] == ["500"] * 3
    assert [("continue" in page, "resourceVersion" in page) for page in pages] == [
        (False, False),
        (True, False),
        (True, False),
    ]
    assert {(each.params["labelSelector"], each.params["fieldSelector"]) for each in server.requests} == {
        ("!broken", "status.phase!=Failed")
    }
    assert seen.replaced == [1201]
    assert seen.items == in_store(server)


async def test_list_sees_one_moment_although_the_collection_changes_between_pages(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    for index in range(600):
        create(server, f"pod-{index:04}")
    server.fail(Where.NEXT_PAGE, slow(5))
    async with running(reflector(client, seen)):
        await until(lambda: any("continue" in each.params for each in server.requests))
        create(server, "pod-9999")
        change(server, "pod-0000", late="yes")
        await until(lambda: server.watching and seen.events == 2)
    assert seen.replaced == [600]
    assert seen.items == in_store(server)


async def test_expiry_while_paging_starts_the_list_again(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    for index in range(501):
        create(server, f"pod-{index:04}")
    server.fail(Where.NEXT_PAGE, answer(410, "Expired"))
    async with running(reflector(client, seen)):
        await until(lambda: seen.replaced)
    assert seen.replaced == [501]
    assert len(server.lists()) == 2
    assert [type(error) for error in seen.failures] == [Gone]


@pytest.mark.parametrize("body", [b'{"metadata":{"resourceVersion":"1"},"items":[{"meta', b"<html>", b"{}"])
async def test_list_that_cannot_be_read_is_retried(
    server: FakeApiServer, client: KubeClient, seen: Recorder, body: bytes
) -> None:
    create(server, "a")
    server.fail(Where.LIST, answer(200, body=body), truncated(body))
    async with running(reflector(client, seen)):
        await until(lambda: seen.replaced)
    assert seen.items == in_store(server)
    assert [type(error) for error in seen.failures] == [Unavailable, Unavailable]


async def test_null_items_are_an_empty_list() -> None:
    assert Codec(Thing, trim).page(b'{"metadata":{"resourceVersion":"7"},"items":null}').items == []


async def test_server_that_is_down_at_the_start_is_awaited(seen: Recorder) -> None:
    server = FakeApiServer()
    async with server:
        pass  # takes a port and leaves it
    access = Access(server=server.url, namespace="default")
    client = KubeClient(Transport(access, user_agent="test"), namespace="default")
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: len(seen.failures) == 5)
        assert not subject.settled_event.is_set()
        async with server:
            await asyncio.wait_for(subject.synced_event.wait(), 60)
    await client.close()


# --- watch --------------------------------------------------------------------------------------------------------


async def test_changes_reach_the_sink(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    create(server, "a")
    create(server, "b")
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        create(server, "c")
        change(server, "a", x="1")
        server.store.delete(PODS, ("default", "b"), {})
        await until(lambda: seen.events == 3)
    assert seen.items == in_store(server)
    assert set(seen.items) == {"a", "c"}


async def test_clean_close_is_resumed_at_once_from_the_last_version(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "a")
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        await asyncio.sleep(100)
        change(server, "a", x="1")
        await until(lambda: seen.events == 1)
        ended = asyncio.get_running_loop().time()
        version = str(server.store.version)
        server.end_watches()
        await until(lambda: len(server.watches()) == 2)
        change(server, "a", x="2")
        await until(lambda: seen.events == 2)
    assert server.watches()[1].params["resourceVersion"] == version
    assert server.watches()[1].at - ended < 0.5
    assert len(server.lists()) == 1
    assert seen.failures == []


async def test_bookmark_moves_the_version(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        server.store.create(CONFIG_MAPS, "default", {"metadata": {"name": "other"}})
        version = str(server.store.version)
        await until(lambda: server.watches()[0].params["resourceVersion"] != version)
        server.send_bookmarks()
        await asyncio.sleep(2)
        server.end_watches()
        await until(lambda: len(server.watches()) == 2)
    assert server.watches()[0].params["allowWatchBookmarks"] == "true"
    assert server.watches()[1].params["resourceVersion"] == version
    assert seen.events == 0


async def test_quiet_watch_lives_on_bookmarks_for_five_to_ten_minutes(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: server.watching)
        started = asyncio.get_running_loop().time()
        for _ in range(10):
            await asyncio.sleep(61)
            assert subject.last_contact is not None
            assert asyncio.get_running_loop().time() - subject.last_contact < 62
        await until(lambda: len(server.watches()) > 1)
        assert 300 <= server.watches()[1].at - started <= 601
    assert len({each.params["timeoutSeconds"] for each in server.watches()}) == len(server.watches())
    assert len(server.lists()) == 1
    assert seen.failures == []


async def test_expired_version_in_the_stream_lists_again(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "a")
    create(server, "b")
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        server.fail(Where.WATCH, slow(10))
        server.end_watches()
        await until(lambda: len(server.watches()) == 2)
        server.store.delete(PODS, ("default", "b"), {})
        server.compact()
        await until(lambda: seen.reasons)
    assert seen.reasons == [RelistReason.EXPIRED]
    assert seen.items == in_store(server)
    assert set(seen.items) == {"a"}


async def test_expired_version_as_status_lists_again(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    server.fail(Where.WATCH, answer(410, "Gone"))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert len(server.lists()) == 2
    assert seen.reasons == [RelistReason.EXPIRED]


async def test_endless_expiry_is_no_tight_loop(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    server.fail(Where.WATCH, *[answer(410, "Expired")] * 1000)
    async with running(reflector(client, seen)):
        await asyncio.sleep(300)
    assert 5 < len(server.lists()) < 60


async def test_expiry_after_an_outage_is_followed_by_a_list_at_once(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    """A server that says 410 is back: the pauses that had grown meanwhile are over."""
    server.fail(Where.WATCH, *[answer(500)] * 12, answer(410, "Expired"))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert seen.reasons == [RelistReason.EXPIRED]
    assert server.lists()[1].at - server.watches()[12].at <= 1.1


async def test_server_errors_are_retried_with_growing_pauses_from_the_last_version(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "a")
    server.fail(Where.WATCH, *[answer(500, "InternalError")] * 200)
    async with running(reflector(client, seen)):
        await asyncio.sleep(600)
    times = [each.at for each in server.watches()]
    pauses = [late - early for early, late in pairwise(times)]
    assert all(pause <= min(30, 2**index) + 0.1 for index, pause in enumerate(pauses))
    assert max(pauses) > 15  # the ceiling is reached
    assert sum(pauses[10:]) / len(pauses[10:]) == pytest.approx(15, abs=5)  # full jitter: half the ceiling on average
    assert len(server.lists()) == 1
    assert {each.params["resourceVersion"] for each in server.watches()} == {str(server.store.version)}


async def test_healthy_stream_ends_a_series_of_failures(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    server.fail(Where.WATCH, *[answer(500)] * 8)
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        await asyncio.sleep(90)
        server.fail(Where.WATCH, answer(500))
        server.end_watches()
        await until(lambda: len(server.watches()) == 11)
    assert server.watches()[10].at - server.watches()[9].at <= 1.1


async def test_reset_connection_resumes(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    create(server, "a")
    line = b'{"type":"ADDED","object":{"metadata":{"name":"x","resourceVersion":"999"}}}\n'
    server.fail(Where.WATCH, reset(), reset())  # aiohttp repeats a read once if its kept-alive connection is dead
    server.fail(Where.WATCH, stream(line, then=Then.RESET), stream(line + line[:20], then=Then.CLOSE))
    async with running(reflector(client, seen)):
        await until(lambda: len(server.watches()) == 5)
    versions = [each.params["resourceVersion"] for each in server.watches()]
    assert versions == [str(server.store.version)] * 3 + ["999"] * 2
    assert [type(error) for error in seen.failures] == [Unavailable, Unavailable]
    assert len(server.lists()) == 1


async def test_reset_while_listing_is_retried(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    server.fail(Where.LIST, reset(), reset())
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert seen.replaced == [0]


async def test_quiet_collection_without_bookmarks_stays_fresh(
    client: KubeClient, seen: Recorder, server: FakeApiServer
) -> None:
    """Where etcd reports no progress, an idle collection gets none: a watch that the server accepts is contact too."""
    server.bookmark_seconds = 10_000
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: server.watching)
        for _ in range(100):
            await asyncio.sleep(11)
            assert subject.last_contact is not None
            assert asyncio.get_running_loop().time() - subject.last_contact < 80


async def test_version_from_the_future_is_given_up(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    """After a restore from a backup a real API server accepts the watch and is silent: three times, then list."""
    create(server, "a")
    server.fail(Where.WATCH, *[stream(then=Then.HANG)] * 3)
    async with running(reflector(client, seen)):
        await until(lambda: len(server.watches()) == 4)
    assert seen.reasons == [RelistReason.BARREN]


@pytest.mark.parametrize(
    ("fault", "seconds", "reason"),
    [(silence(), (20, 21.1), "Timeout"), (stream(then=Then.HANG), (70, 76.1), "Silent")],
    ids=["no answer", "no event"],
)
async def test_half_open_connection_is_given_up_after_the_silence_limit(
    server: FakeApiServer,
    client: KubeClient,
    seen: Recorder,
    fault: Any,
    seconds: tuple[float, float],
    reason: str,
) -> None:
    """That nothing happens on an open watch is routine; that a watch is not even opened is not."""
    create(server, "a")
    server.fail(Where.WATCH, fault)
    async with running(reflector(client, seen)):
        await until(lambda: len(server.watches()) == 2)
        change(server, "a", x="1")
        await until(lambda: seen.events == 1)
    first, second = server.watches()
    assert seconds[0] <= second.at - first.at <= seconds[1]
    assert second.params["resourceVersion"] == first.params["resourceVersion"]
    assert len(server.lists()) == 1
    assert [error.reason for error in seen.failures] == [reason]


async def test_silent_list_is_given_up(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    server.fail(Where.LIST, silence())
    async with running(reflector(client, seen)):
        await until(lambda: seen.replaced)
    assert 20 <= server.lists()[1].at - server.lists()[0].at <= 21.1


async def test_the_last_failure_is_the_problem_until_one_works(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    """`/readyz` shows it. A watch on which nothing happens is no problem."""
    subject = seen.of = reflector(client, seen)
    server.fail(Where.LIST, answer(500, "InternalError"))
    server.fail(Where.WATCH, *[stream(then=Then.HANG)] * 2, *[answer(503, "ServiceUnavailable")] * 3)
    async with running(subject):
        await until(lambda: seen.failures)
        assert "500 InternalError" in str(subject.problem)
        await until(lambda: seen.replaced)
        assert subject.problem is None
        await until(lambda: len(seen.failures) == 2)
        assert seen.failures[1].reason == "Silent"
        assert seen.problems[1] is None
        await until(lambda: len(seen.failures) > 3)
        assert "503 ServiceUnavailable" in str(subject.problem)
        await until(lambda: server.watching)
        assert subject.problem is None


@pytest.mark.parametrize("where", [Where.LIST, Where.WATCH])
@pytest.mark.parametrize("asked", [121, 3600, 86_400])
async def test_a_wish_for_more_than_two_minutes_is_not_granted(
    server: FakeApiServer, client: KubeClient, seen: Recorder, where: Where, asked: int
) -> None:
    """A proxy that asks for an hour must not blind us for an hour."""
    server.fail(where, answer(429, "TooManyRequests", headers={"Retry-After": str(asked)}))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    first, second = [each for each in server.requests if bool(each.params.get("watch")) == (where is Where.WATCH)]
    assert 120 <= second.at - first.at <= 121.1


@pytest.mark.parametrize("where", [Where.LIST, Where.WATCH])
async def test_retry_after_is_honoured(server: FakeApiServer, client: KubeClient, seen: Recorder, where: Where) -> None:
    server.fail(where, answer(429, "TooManyRequests", headers={"Retry-After": "40"}))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    first, second = [each for each in server.requests if bool(each.params.get("watch")) == (where is Where.WATCH)]
    assert 40 <= second.at - first.at <= 41.1
    assert [type(error) for error in seen.failures] == [Throttled]


async def test_streams_that_close_at_once_are_no_tight_loop(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    server.fail(Where.WATCH, *[stream()] * 500)
    async with running(reflector(client, seen)):
        await asyncio.sleep(300)
    assert 5 < len(server.watches()) < 60
    assert seen.failures == []


async def test_refused_token_is_repeated_without_a_pause(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    server.fail(Where.LIST, answer(401, "Unauthorized"))
    server.fail(Where.WATCH, answer(401, "Unauthorized"))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert seen.failures == []
    assert len(server.watches()) == 2


async def test_lasting_401_is_a_failure_and_not_a_missing_collection(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    server.tokens = {"other"}
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: len(seen.failures) == 3)
    assert not subject.missing
    assert {type(error) for error in seen.failures} == {Forbidden}


# --- what cannot be read ------------------------------------------------------------------------------------------


async def test_undecodable_objects_are_told_once_and_skipped(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "good")
    create(server, "bad", broken="yes")
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: server.watching)
        assert set(seen.items) == {"good"}
        change(server, "bad", again="yes")
        create(server, "worse", broken="yes")
        change(server, "good", x="1")
        await until(lambda: seen.events == 3)
        subject.relist()
        await until(lambda: seen.reasons and server.watching)
    assert seen.skipped == ["default/bad", "default/worse"]
    assert seen.items == {"good": in_store(server)["good"]}
    assert len(server.lists()) == 2  # the first, and the one asked for


async def test_object_that_becomes_readable_is_taken_and_told_again_when_it_breaks(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "bad", broken="yes")
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        change(server, "bad", broken=None)
        await until(lambda: "bad" in seen.items)
        change(server, "bad", broken="yes")
        await until(lambda: seen.events == 2)
    assert seen.skipped == ["default/bad", "default/bad"]


async def test_deletion_that_cannot_be_read_lists_again_if_the_object_was_known(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "never-known", broken="yes")
    create(server, "known")
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        server.store.delete(PODS, ("default", "never-known"), {})
        create(server, "never-known-either", broken="yes")
        server.store.delete(PODS, ("default", "never-known-either"), {})
        await until(lambda: seen.events == 3)
        await asyncio.sleep(1)
        assert len(server.lists()) == 1
        change(server, "known", broken="yes")
        server.store.delete(PODS, ("default", "known"), {})
        await until(lambda: seen.reasons)
    assert seen.reasons == [RelistReason.UNDECODABLE]
    assert seen.items == {}


async def test_garbage_in_the_stream_reconnects_and_in_the_end_lists_again(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "a")
    server.fail(Where.WATCH, *[stream(b"not json\n")] * 3)
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert len(server.watches()) == 4
    assert seen.reasons == [RelistReason.BARREN]
    assert {error.reason for error in seen.failures} == {"Malformed"}


async def test_error_event_without_a_status_is_a_failure(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    server.fail(Where.WATCH, stream(b'{"type":"ERROR","object":{}}\n'))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert [type(error) for error in seen.failures] == [Unavailable]


async def test_unknown_event_types_are_passed_over(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    line = b'{"type":"NOVELTY","object":{"metadata":{"resourceVersion":"77"}}}\n'
    server.fail(Where.WATCH, stream(line))
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
    assert (seen.items, seen.failures) == ({}, [])
    assert server.watches()[1].params["resourceVersion"] == "77"


# --- missing collections ------------------------------------------------------------------------------------------


async def test_missing_kind_is_told_once_and_picked_up_when_it_appears(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    subject = reflector(client, seen, path=NODE_CLAIMS.path)
    async with running(subject):
        await asyncio.sleep(200)
        assert subject.settled_event.is_set()
        assert not subject.synced
        assert problem_of(subject).endswith("(404 NotFound)")
        assert 6 <= len(server.requests) <= 8
        server.store.enable(NODE_CLAIMS)
        server.store.create(NODE_CLAIMS, "", {"metadata": {"name": "claim"}})
        await until(lambda: subject.synced, within=36)
        assert problem_of(subject) == ""
        assert set(seen.items) == {"claim"}
    assert [type(error) for error in seen.failures] == [NotFound]


async def test_forbidden_collection_is_missing_and_keeps_what_was_seen(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    create(server, "a")
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: server.watching)
        server.fail(Where.ANY, answer(403, "Forbidden"), answer(403, "Forbidden"))
        server.end_watches()
        await until(lambda: subject.missing)
        assert set(seen.items) == {"a"}
        await until(lambda: server.watching)
        assert not subject.missing
    assert [type(error) for error in seen.failures] == [Forbidden]
    assert seen.reasons == [RelistReason.REAPPEARED]


async def test_what_could_not_be_read_for_too_long_is_forgotten_once_and_listed_anew(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    """Where it is asked for: what was seen then is older than anybody may believe."""
    create(server, "a")
    subject = reflector(client, seen, forgets_after=timedelta(seconds=60))
    async with running(subject):
        await until(lambda: server.watching)
        server.fail(Where.ANY, *[answer(503, "ServiceUnavailable")] * 12)
        server.end_watches()
        await until(lambda: seen.items == {})
        await until(lambda: server.watching)
    assert seen.replaced == [1, 0, 1]
    assert seen.reasons == [RelistReason.REAPPEARED]


# --- relist and the end -------------------------------------------------------------------------------------------


async def test_relist_interrupts_a_watch_a_pause_and_a_list(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    subject = reflector(client, seen)
    subject.relist()  # before it runs: the first list serves it
    async with running(subject):
        await until(lambda: server.watching)
        subject.relist()
        await asyncio.sleep(0)  # the interruption is under way
        subject.relist()
        await until(lambda: len(seen.replaced) == 2 and server.watching, within=1)
        server.fail(Where.WATCH, answer(429, headers={"Retry-After": "100"}))
        server.end_watches()
        await until(lambda: seen.failures)
        subject.relist()
        await until(lambda: len(seen.replaced) == 3 and server.watching, within=1)
        server.fail(Where.LIST, slow(50))
        subject.relist()
        await until(lambda: len(server.lists()) == 4)
        subject.relist()
        await until(lambda: len(seen.replaced) == 4 and server.watching, within=1)
    assert seen.reasons == [RelistReason.REQUESTED] * 3


async def test_relist_that_fails_is_tried_again(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    subject = reflector(client, seen)
    async with running(subject):
        await until(lambda: server.watching)
        server.fail(Where.LIST, answer(500))
        subject.relist()
        await until(lambda: len(seen.replaced) == 2)
    assert [type(error) for error in seen.failures] == [Unavailable]


async def test_cancellation_ends_it_and_closes_the_stream(
    server: FakeApiServer, client: KubeClient, seen: Recorder
) -> None:
    async with running(reflector(client, seen)) as task:
        await until(lambda: server.watching)
    assert task.cancelled()
    await until(lambda: not server.watching, within=1)


# --- chunks -------------------------------------------------------------------------------------------------------


class Chunked:
    """A client whose only watch delivers the given chunks and then stays open."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = chunks

    async def get_bytes(
        self,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        timeout: timedelta = timedelta(0),  # noqa: ASYNC109
    ) -> bytes:
        return b'{"metadata":{"resourceVersion":"1"},"items":[]}'

    @asynccontextmanager
    async def watch_stream(
        self, path: str, *, params: Mapping[str, str], silence_limit: timedelta
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self._stream()

    async def _stream(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        await asyncio.Event().wait()


_NAMES = st.lists(st.text(alphabet='aä€😀\\"\u2028\x85', min_size=1, max_size=5), min_size=1, max_size=5, unique=True)


@given(names=_NAMES, cuts=st.lists(st.integers(min_value=0, max_value=600), max_size=12))
def test_chunk_borders_do_not_matter(names: list[str], cuts: list[int]) -> None:
    """Wherever the stream is cut, inside a character or not, the same objects arrive."""
    objects = [{"metadata": {"name": name, "resourceVersion": str(index)}} for index, name in enumerate(names)]
    whole = b"".join(msgspec.json.encode({"type": "ADDED", "object": each}) + b"\n" for each in objects)
    borders = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    chunks = [whole[start:end] for start, end in pairwise(borders) if end > start]
    seen = Recorder()

    async def follow() -> None:
        async with running(reflector(Chunked(chunks), seen)):
            while seen.events < len(names):  # noqa: ASYNC110
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(follow(), 5))
    assert seen.items == {name: str(index) for index, name in enumerate(names)}


async def test_objects_larger_than_any_buffer_arrive(server: FakeApiServer, client: KubeClient, seen: Recorder) -> None:
    async with running(reflector(client, seen)):
        await until(lambda: server.watching)
        server.store.create(PODS, "default", {"metadata": {"name": "big"}, "data": "x" * 3_000_000})
        await until(lambda: seen.events == 1)
    assert seen.items == in_store(server)
