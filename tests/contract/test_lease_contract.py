"""What the elector relies on in a Lease: true of a real API server, of the fake one, and of the fake in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from extender.kube.api_client import KubeClient
from extender.kube.errors import Conflict, NotFound
from extender.kube.lease import LeaseStore, annotations_of, is_held
from extender.loops.elector import Leases
from extender.policy.election import LeaseRecord, next_record, released
from tests.fakes.apiserver import FakeApiServer
from tests.fakes.leases import FakeLease, FakeLeaseStore

NAME = "leader"
ACQUIRED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECORD = LeaseRecord(
    holder="one_1",
    duration=timedelta(seconds=15),
    acquired=ACQUIRED,
    renewed=ACQUIRED + timedelta(microseconds=10),
    transitions=2,
)
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A store, and what somebody else does to its Lease: delete it, or change its metadata."""

    store: Leases
    delete: Callable[[], Awaitable[object]]
    touch: Callable[[], Awaitable[object]]


def in_memory() -> Ground:
    lease = FakeLease()

    async def delete() -> None:
        lease.delete()

    async def touch() -> None:
        lease.touch()

    return Ground(store=FakeLeaseStore(lease), delete=delete, touch=touch)


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    client = await KubeClient.connect(kubeconfig=str(kubeconfig), user_agent="warmnode/contract-test")
    try:
        yield client
    finally:
        await client.close()


def on_server(client: KubeClient, namespace: str) -> Ground:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{NAME}"
    return Ground(
        store=LeaseStore(client, namespace=namespace, name=NAME),
        delete=lambda: client.send("DELETE", path, b"{}"),
        touch=lambda: client.send("PATCH", path, b'{"metadata":{"labels":{"of":"others"}}}', content_type=MERGE_PATCH),
    )


@pytest.fixture(params=["memory", "fake", pytest.param("real", marks=pytest.mark.controlplane)])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """A Lease of each sort, which does not exist yet."""
    if request.param == "memory":
        yield in_memory()
    elif request.param == "fake":
        async with FakeApiServer() as server, connected(server.write_kubeconfig(tmp_path / "kubeconfig")) as client:
            yield on_server(client, "default")
    else:
        kubeconfig = request.getfixturevalue("control_plane").kubeconfig
        async with connected(kubeconfig) as client:
            yield on_server(client, request.getfixturevalue("namespace"))


async def test_there_is_none_before_it_is_created(ground: Ground) -> None:
    assert await ground.store.read() is None


async def test_what_is_written_is_read(ground: Ground) -> None:
    """All of it, times to the microsecond, by every way to read it."""
    created = await ground.store.create(RECORD)
    found = await ground.store.read()
    assert found is not None
    assert created.record == found.record == RECORD
    renewed = next_record(RECORD, identity="one_1", lease_duration=timedelta(seconds=20), now=ACQUIRED)
    updated = await ground.store.update(renewed, found)
    found = await ground.store.read()
    assert found is not None
    assert updated.record == found.record == renewed


async def test_answer_to_a_write_is_a_base_for_the_next(ground: Ground) -> None:
    lease = await ground.store.create(RECORD)
    for holder in ("two_2", "three_3"):
        lease = await ground.store.update(replace(RECORD, holder=holder), lease)
    assert lease.record.holder == "three_3"


async def test_released_lease_is_accepted(ground: Ground) -> None:
    """An empty holder and a term of one second are valid."""
    lease = await ground.store.create(RECORD)
    gone = released(RECORD, now=ACQUIRED + timedelta(seconds=1))
    assert (await ground.store.update(gone, lease)).record == gone


async def test_second_creation_conflicts(ground: Ground) -> None:
    await ground.store.create(RECORD)
    with pytest.raises(Conflict):
        await ground.store.create(replace(RECORD, holder="two_2"))


async def test_of_two_writers_one_conflicts(ground: Ground) -> None:
    lease = await ground.store.create(RECORD)
    await ground.store.update(replace(RECORD, holder="two_2"), lease)
    with pytest.raises(Conflict):
        await ground.store.update(replace(RECORD, holder="three_3"), lease)
    found = await ground.store.read()
    assert found is not None
    assert found.record.holder == "two_2"


async def test_change_of_metadata_conflicts_and_is_no_change_of_the_record(ground: Ground) -> None:
    lease = await ground.store.create(RECORD)
    await ground.touch()
    with pytest.raises(Conflict):
        await ground.store.update(replace(RECORD, holder="two_2"), lease)
    found = await ground.store.read()
    assert found is not None
    assert found.record == RECORD


async def test_deleted_lease_is_not_written(ground: Ground) -> None:
    """It is not made again by an update, which a real API server would do for a Lease without a uid."""
    lease = await ground.store.create(RECORD)
    await ground.delete()
    assert await ground.store.read() is None
    with pytest.raises(Conflict):
        await ground.store.update(RECORD, lease)
    assert await ground.store.read() is None


async def test_lease_that_was_made_anew_is_another_one(ground: Ground) -> None:
    lease = await ground.store.create(RECORD)
    await ground.delete()
    await ground.store.create(RECORD)
    with pytest.raises(Conflict):
        await ground.store.update(RECORD, lease)


# --- only over HTTP -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.controlplane)])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[KubeClient, str]]:
    """A client and a namespace."""
    if request.param == "fake":
        async with FakeApiServer() as fake, connected(fake.write_kubeconfig(tmp_path / "kubeconfig")) as client:
            yield client, "default"
    else:
        async with connected(request.getfixturevalue("control_plane").kubeconfig) as client:
            yield client, request.getfixturevalue("namespace")


async def test_foreign_labels_are_kept(server: tuple[KubeClient, str]) -> None:
    """What others have put on the Lease survives our writes, and ours say whose it is."""
    client, namespace = server
    ground = on_server(client, namespace)
    await ground.store.create(RECORD)
    await ground.touch()
    found = await ground.store.read()
    assert found is not None
    updated = await ground.store.update(replace(RECORD, holder="two_2"), found)
    labels = msgspec.json.decode(updated.metadata)["labels"]
    assert labels == {
        "of": "others",
        "app.kubernetes.io/name": "warmnode",
        "app.kubernetes.io/component": "leader-election",
    }


async def test_no_namespace_is_not_found(server: tuple[KubeClient, str]) -> None:
    store = LeaseStore(server[0], namespace="there-is-none", name=NAME)
    assert await store.read() is None
    with pytest.raises(NotFound):
        await store.create(RECORD)


async def test_lease_without_a_spec_can_be_taken(server: tuple[KubeClient, str]) -> None:
    """As `kubectl create` or a manifest may make it."""
    client, namespace = server
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    await client.send("POST", path, b'{"metadata":{"name":"leader"}}')
    store = LeaseStore(client, namespace=namespace, name=NAME)
    found = await store.read()
    assert found is not None
    assert found.record == LeaseRecord()
    assert (await store.update(RECORD, found)).record == RECORD


async def test_notes_are_brought_up_to_date_with_each_write(server: tuple[KubeClient, str]) -> None:
    """Those of others stay, and one that is None is taken away."""
    client, namespace = server
    notes: dict[str, str | None] = {"warmnode.dev/a": "1", "warmnode.dev/b": None}
    store = LeaseStore(client, namespace=namespace, name=NAME, notes=lambda: notes)
    lease = await store.create(RECORD)
    assert annotations_of(lease) == {"warmnode.dev/a": "1"}
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{NAME}"
    merge = "application/merge-patch+json"
    await client.send("PATCH", path, b'{"metadata":{"annotations":{"theirs":"x"}}}', content_type=merge)
    found = await store.read()
    assert found is not None
    notes |= {"warmnode.dev/a": None, "warmnode.dev/b": "2"}
    assert annotations_of(await store.update(RECORD, found)) == {"theirs": "x", "warmnode.dev/b": "2"}


async def test_held_is_what_was_renewed_lately(server: tuple[KubeClient, str]) -> None:
    client, namespace = server

    async def held() -> bool:
        return await is_held(client, namespace=namespace, name=NAME, within=timedelta(minutes=1))

    now = datetime.now(UTC)
    store = LeaseStore(client, namespace=namespace, name=NAME)
    assert not await held()
    lease = await store.create(replace(RECORD, renewed=now))
    assert await held()
    lease = await store.update(replace(RECORD, renewed=now - timedelta(minutes=2)), lease)
    assert not await held()
    await store.update(replace(RECORD, holder="", renewed=now), lease)
    assert not await held()
