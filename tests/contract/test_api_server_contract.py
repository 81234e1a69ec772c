"""What warmnode relies on in an API server: true of the real one, and of the fake that the other tests use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, TypeAlias
from uuid import uuid4

import msgspec
import pytest

from extender.kube.api_client import KubeClient
from extender.kube.errors import Conflict, KubeError, NotFound
from extender.kube.watch import Reflector
from tests.fakes.apiserver import FakeApiServer

Json: TypeAlias = dict[str, Any]

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
SILENCE = timedelta(seconds=20)


@pytest.fixture
async def fake_kubeconfig(tmp_path: Path) -> AsyncIterator[Path]:
    async with FakeApiServer(bookmark_seconds=0.01) as server:
        yield server.write_kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.controlplane)])
def kubeconfig(request: pytest.FixtureRequest) -> Path:
    """A cluster of each sort."""
    if request.param == "fake":
        fake: Path = request.getfixturevalue("fake_kubeconfig")
        return fake
    real: Path = request.getfixturevalue("control_plane").kubeconfig
    return real


@pytest.fixture
def space(request: pytest.FixtureRequest, kubeconfig: Path) -> str:
    """A namespace to write in; nothing else of the test's labels is in it."""
    if request.node.callspec.params["kubeconfig"] == "fake":
        return "default"
    name: str = request.getfixturevalue("namespace")
    return name


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    connected = await KubeClient.connect(kubeconfig=str(kubeconfig), user_agent="warmnode/contract-test")
    yield connected
    await connected.close()


class Maps:
    """ConfigMaps of one namespace that carry the label ``contract``."""

    def __init__(self, client: KubeClient, space: str) -> None:
        self.path = f"/api/v1/namespaces/{space}/configmaps"
        self._client = client

    async def create(self, name: str, **labels: str) -> Json:
        tree = {"metadata": {"name": name, "labels": {"contract": "yes", **labels}}, "data": {"a": "1"}}
        return await self.send("POST", "", tree)

    async def patch(self, name: str, patch: Json, *, kind: str = MERGE_PATCH) -> Json:
        return await self.send("PATCH", f"/{name}", patch, content_type=kind)

    async def send(self, method: str, name: str, tree: Json, **options: Any) -> Json:
        return decoded(await self._client.send(method, self.path + name, json.dumps(tree).encode(), **options))

    async def page(self, **params: str) -> Json:
        return decoded(await self._client.get_bytes(self.path, params={"labelSelector": "contract", **params}))


def decoded(body: bytes) -> Json:
    tree: Json = json.loads(body)
    return tree


@pytest.fixture
def maps(client: KubeClient, space: str) -> Maps:
    return Maps(client, space)


def version(tree: Json) -> str:
    found: str = tree["metadata"]["resourceVersion"]
    return found


async def create_pod(client: KubeClient, path: str, **spec: str) -> Json:
    """A pod that no scheduler takes."""
    whole = {"schedulerName": "nobody", "containers": [{"name": "c", "image": "none"}], **spec}
    body = json.dumps({"metadata": {"generateName": "worker-"}, "spec": whole}).encode()
    return decoded(await client.send("POST", path, body))


def names(page: Json) -> list[str]:
    return [item["metadata"]["name"] for item in page["items"]]


async def nothing() -> None:
    """The default of what happens once a watch is open."""


async def events(
    client: KubeClient,
    path: str,
    count: int,
    *,
    then: Callable[[], Awaitable[object]] = nothing,
    after: int | None = None,
    **params: str,
) -> list[Json]:
    """The first ``count`` events of a watch, above the version ``after`` if given; ``then`` happens when it is open."""
    found: list[Json] = []
    rest = b""
    query = {"watch": "1", "timeoutSeconds": "10", **params}
    async with client.watch_stream(path, params=query, silence_limit=SILENCE) as chunks:
        await then()
        async for chunk in chunks:
            *lines, rest = (rest + chunk).split(b"\n")
            told = [json.loads(line) for line in lines]
            found += [each for each in told if after is None or int(version(each["object"])) > after]
            if len(found) >= count:
                break
    return found[:count]


# --- lists --------------------------------------------------------------------------------------------------------


async def test_pages_show_one_moment(maps: Maps) -> None:
    for name in ("b", "c", "d", "e", "f"):
        await maps.create(name)
    first = await maps.page(limit="2")
    await maps.create("a")
    await maps.create("g")
    second = await maps.page(limit="2", **{"continue": first["metadata"]["continue"]})
    third = await maps.page(limit="2", **{"continue": second["metadata"]["continue"]})
    assert [names(page) for page in (first, second, third)] == [["b", "c"], ["d", "e"], ["f"]]
    assert version(first) == version(second) == version(third)
    assert not third["metadata"].get("continue")
    assert names(await maps.page()) == ["a", "b", "c", "d", "e", "f", "g"]


async def test_invalid_continue_token_is_a_bad_request(maps: Maps) -> None:
    with pytest.raises(KubeError) as caught:
        await maps.page(limit="2", **{"continue": "bm9uc2Vuc2U"})
    assert caught.value.status == 400


async def test_selectors_filter_a_list(maps: Maps) -> None:
    await maps.create("a", color="red")
    await maps.create("b", color="blue")
    await maps.create("c")
    assert names(await maps.page(labelSelector="contract,color in (red, green)")) == ["a"]
    assert names(await maps.page(labelSelector="contract,color notin (red)")) == ["b", "c"]
    assert names(await maps.page(labelSelector="contract,!color")) == ["c"]
    assert names(await maps.page(labelSelector="contract=yes,color!=red")) == ["b", "c"]
    assert names(await maps.page(fieldSelector="metadata.name=b")) == ["b"]


async def test_unknown_kind_is_not_found(client: KubeClient) -> None:
    for path in ("/apis/karpenter.example/v1/nodeclaims", "/api/v1/nonsense"):
        with pytest.raises(NotFound):
            await client.get_bytes(path)


# --- watches ------------------------------------------------------------------------------------------------------


async def test_watch_tells_what_happened_after_its_version(client: KubeClient, maps: Maps) -> None:
    await maps.create("before")
    start = version(await maps.page())
    created = await maps.create("a")
    changed = await maps.patch("a", {"data": {"b": "2"}})
    await maps.send("DELETE", "/a", {})
    seen = await events(client, maps.path, 3, resourceVersion=start, labelSelector="contract")
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [version(event["object"]) for event in seen[:2]] == [version(created), version(changed)]
    assert seen[2]["object"]["data"] == {"a": "1", "b": "2"}
    assert int(version(seen[2]["object"])) > int(version(changed))


async def test_leaving_a_selection_is_a_deletion_and_entering_an_addition(client: KubeClient, maps: Maps) -> None:
    await maps.create("a", color="red")
    start = version(await maps.page())
    await maps.patch("a", {"metadata": {"labels": {"color": "blue"}}})
    await maps.patch("a", {"metadata": {"labels": {"color": "red"}}})
    seen = await events(client, maps.path, 2, resourceVersion=start, labelSelector="color=red")
    assert [event["type"] for event in seen] == ["DELETED", "ADDED"]


async def test_bookmark_has_a_version_and_no_content(client: KubeClient, space: str) -> None:
    """It comes two seconds before the end at the latest, if something has happened that the selection does not show.

    The fake sends one each moment, the first ones before that.
    """
    path = f"/api/v1/namespaces/{space}/pods"
    start = version(decoded(await client.get_bytes(path)))
    params = {"allowWatchBookmarks": "true", "timeoutSeconds": "8", "resourceVersion": start, "labelSelector": "none"}
    (bookmark,) = await events(client, path, 1, then=lambda: create_pod(client, path), after=int(start), **params)
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "Pod"
    assert "name" not in bookmark["object"]["metadata"]
    assert bookmark["object"]["spec"]["containers"] is None  # the reason for decoding twice


async def test_watch_ends_when_its_time_is_up(client: KubeClient, maps: Maps) -> None:
    start = version(await maps.page())
    assert await events(client, maps.path, 1, resourceVersion=start, timeoutSeconds="1") == []


# --- writes -------------------------------------------------------------------------------------------------------


async def test_creating_what_exists_conflicts(maps: Maps) -> None:
    await maps.create("a")
    with pytest.raises(Conflict) as caught:
        await maps.create("a")
    assert caught.value.reason == "AlreadyExists"


async def test_creating_in_no_namespace_is_not_found(client: KubeClient) -> None:
    with pytest.raises(NotFound):
        await Maps(client, f"none-{uuid4().hex[:8]}").create("a")


@pytest.mark.parametrize("kind", [MERGE_PATCH, STRATEGIC_PATCH])
async def test_patch_holds_its_preconditions(maps: Maps, kind: str) -> None:
    """A stale resourceVersion or a foreign uid conflicts, the right ones pass, and null removes a key."""
    created = await maps.create("a")
    meta = created["metadata"]
    changed = await maps.patch("a", {"metadata": {"resourceVersion": version(created)}, "data": {"b": "2"}}, kind=kind)
    assert changed["data"] == {"a": "1", "b": "2"}
    with pytest.raises(Conflict) as caught:
        await maps.patch("a", {"metadata": {"resourceVersion": version(created)}, "data": {"b": "3"}}, kind=kind)
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    with pytest.raises(Conflict) as caught:
        await maps.patch("a", {"metadata": {"uid": str(uuid4())}, "data": {"b": "3"}}, kind=kind)
    assert caught.value.status == 422
    changed = await maps.patch("a", {"metadata": {"uid": meta["uid"]}, "data": {"b": None}}, kind=kind)
    assert changed["data"] == {"a": "1"}
    assert changed["metadata"]["uid"] == meta["uid"]


@pytest.mark.parametrize("kind", [MERGE_PATCH, STRATEGIC_PATCH])
async def test_null_leaves_nothing_where_nothing_was(client: KubeClient, space: str, kind: str) -> None:
    """In annotations and labels of a pod that has none: no empty value is written."""
    path = f"/api/v1/namespaces/{space}/pods"
    name = (await create_pod(client, path))["metadata"]["name"]
    patch = json.dumps({"metadata": {"annotations": {"a": "1", "b": None}, "labels": {"c": None}}}).encode()
    meta = decoded(await client.send("PATCH", f"{path}/{name}", patch, content_type=kind))["metadata"]
    assert meta["annotations"] == {"a": "1"}
    assert not meta.get("labels")


async def test_patch_that_changes_nothing_keeps_the_version(maps: Maps) -> None:
    created = await maps.create("a")
    assert version(await maps.patch("a", {"data": {"a": "1"}})) == version(created)


async def test_patch_of_what_is_gone_is_not_found(maps: Maps) -> None:
    with pytest.raises(NotFound):
        await maps.patch("none", {"data": {"a": "2"}})


async def test_patch_needs_its_content_type(maps: Maps) -> None:
    await maps.create("a")
    with pytest.raises(KubeError) as caught:
        await maps.send("PATCH", "/a", {"data": {"a": "2"}})
    assert caught.value.status == 415


async def test_lease_update_needs_the_current_version(client: KubeClient, space: str) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{space}/leases"
    lease: Json = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "one"}}
    created = decoded(await client.send("POST", path, json.dumps(lease).encode()))
    with pytest.raises(KubeError) as caught:
        await client.send("PUT", f"{path}/leader", json.dumps(lease).encode())
    assert caught.value.status == 422
    lease["metadata"]["resourceVersion"] = version(created)
    lease["spec"]["holderIdentity"] = "two"
    await client.send("PUT", f"{path}/leader", json.dumps(lease).encode())
    with pytest.raises(Conflict):
        await client.send("PUT", f"{path}/leader", json.dumps(lease).encode())
    assert decoded(await client.get_bytes(f"{path}/leader"))["spec"]["holderIdentity"] == "two"


async def test_deletion_holds_its_preconditions(maps: Maps) -> None:
    created = await maps.create("a")
    with pytest.raises(Conflict):
        await maps.send("DELETE", "/a", {"preconditions": {"uid": str(uuid4())}})
    with pytest.raises(Conflict):
        await maps.send("DELETE", "/a", {"preconditions": {"resourceVersion": "1"}})
    done = await maps.send("DELETE", "/a", {"preconditions": {"uid": created["metadata"]["uid"]}})
    assert done["status"] == "Success"
    with pytest.raises(NotFound):
        await maps.send("DELETE", "/a", {})


async def test_eviction_holds_its_preconditions(client: KubeClient, space: str) -> None:
    path = f"/api/v1/namespaces/{space}/pods"
    name = (await create_pod(client, path, nodeName="nowhere"))["metadata"]["name"]
    assert name.startswith("worker-")
    # Running, because for a pending pod the API server itself retries a foreign uid for ten seconds.
    running = json.dumps({"status": {"phase": "Running"}}).encode()
    meta = decoded(await client.send("PATCH", f"{path}/{name}/status", running, content_type=MERGE_PATCH))["metadata"]

    async def evict(**preconditions: str) -> Json:
        options = {"preconditions": preconditions, "gracePeriodSeconds": 0}
        tree = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": meta["name"], "namespace": space}}
        body = json.dumps(tree | {"deleteOptions": options}).encode()
        return decoded(await client.send("POST", f"{path}/{meta['name']}/eviction", body))

    with pytest.raises(Conflict):
        await evict(uid=str(uuid4()))
    with pytest.raises(Conflict):
        await evict(uid=meta["uid"], resourceVersion="1")
    assert (await evict(uid=meta["uid"], resourceVersion=meta["resourceVersion"]))["status"] == "Success"
    with pytest.raises(NotFound):
        await evict(uid=meta["uid"])


async def test_answers_are_dated(client: KubeClient, maps: Maps) -> None:
    await maps.page()
    assert client.clock_skew is not None
    assert abs(client.clock_skew) < timedelta(seconds=5)


# --- all of it ----------------------------------------------------------------------------------------------------


class Meta(msgspec.Struct):
    name: str


class Map(msgspec.Struct):
    metadata: Meta
    data: dict[str, str]


class Contents:
    """A sink: name -> data."""

    def __init__(self) -> None:
        self.now: dict[str, dict[str, str]] = {}

    def replace(self, items: list[Map]) -> None:
        self.now = {item.metadata.name: item.data for item in items}

    def upsert(self, item: Map) -> None:
        self.now[item.metadata.name] = item.data

    def delete(self, item: Map) -> None:
        self.now.pop(item.metadata.name, None)

    async def become(self, expected: dict[str, dict[str, str]]) -> None:
        async with asyncio.timeout(10):
            while self.now != expected:  # noqa: ASYNC110 - a condition with a deadline
                await asyncio.sleep(0.005)


async def test_reflector_follows(client: KubeClient, maps: Maps) -> None:
    await maps.create("a")
    contents = Contents()
    reflector: Reflector[Map, Map] = Reflector(
        client,
        path=maps.path,
        struct=Map,
        trim=lambda item: item,
        sink=contents,
        name="maps",
        label_selector="contract",
        random=Random(1),  # noqa: S311
    )
    task = asyncio.create_task(reflector.run())
    await contents.become({"a": {"a": "1"}})
    await maps.create("b")
    await maps.patch("a", {"data": {"a": "2"}})
    await contents.become({"a": {"a": "2"}, "b": {"a": "1"}})
    await maps.send("DELETE", "/b", {})
    await contents.become({"a": {"a": "2"}})
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_list_can_show_an_object_as_it_was_at_a_version(maps: Maps) -> None:
    """By name and exact version: a claimant learns so which of its two claims was written first."""
    first = version(await maps.create("a", step="1"))
    second = version(await maps.patch("a", {"metadata": {"labels": {"step": "2"}}}))
    await maps.patch("a", {"metadata": {"labels": {"step": "3"}}})
    for at, step in ((first, "1"), (second, "2")):
        exact = {"resourceVersion": at, "resourceVersionMatch": "Exact", "fieldSelector": "metadata.name=a"}
        page = await maps.page(**exact)
        assert [item["metadata"]["labels"]["step"] for item in page["items"]] == [step]


async def test_a_list_by_label_holds_every_write_that_was_answered(maps: Maps) -> None:
    """Without resourceVersion it is consistent: a label that was just set, or just removed, counts."""
    await maps.create("a")
    for _ in range(20):
        await maps.patch("a", {"metadata": {"labels": {"claimed": "x"}}})
        assert names(await maps.page(labelSelector="claimed=x")) == ["a"]
        await maps.patch("a", {"metadata": {"labels": {"claimed": None}}})
        assert names(await maps.page(labelSelector="claimed=x")) == []
